"""The state at the start of a sequence, where an init graph computes it from what the request holds."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import SOURCE, Network, State
from service.engine.request import Caller, StateRow
from service.errors import InvalidArgument, ModelFailure, shown
from service.tasks.pending import Pending
from service.tasks.sequence_inputs import SequenceInput
from service.tasks.source import SourceReader, no_source
from service.tasks.workers import Workers


class Init(Protocol):
    """A model's init graph."""

    def run(self, inputs: Mapping[str, NDArray[Any]], /) -> Mapping[str, NDArray[np.float32]]:
        """Return the states that the graph computes, float32 (1, size) by name.

        Args:
            inputs: float32 (1, size) by name; of an encoder also `source`, int64 (1, S) or float32 (1, S, F).

        Raises:
            ModelFailure: the run failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """Values of a request that the first state of its sequence is computed from.

    Attributes:
        initial: inputs of the model's init graph by name, float32 (size,).
        source: what the model's encoder reads; None: there is none.
    """

    initial: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    source: SequenceInput | None = None


PLAIN_START = Start()


class FirstState:
    """Computes the first states of one model's sequences.

    Args:
        network: its states, and the inputs of its init graph.
        init: the graph; None where the model has none.
        workers: run the graph.
        source: reads what an encoder in the graph gets; None: there is no encoder.
        pending: bounds the runs of the encoder that wait or are under way; None: there is no encoder.

    Attributes:
        inputs: names of the init graph's inputs, that of an encoder's source included; none without one.
        source: the same.
    """

    def __init__(
        self,
        network: Network,
        init: Init | None,
        workers: Workers,
        source: SourceReader | None = None,
        pending: Pending | None = None,
    ) -> None:
        assert (network.init is None) == (init is None), "a model's init graph is loaded with it"
        self._init = init
        self._sizes = {one.name: one.size for one in network.init.inputs} if network.init else {}
        self._states = network.states
        self.inputs = (*self._sizes, *(() if source is None else (SOURCE,)))
        self.source = source
        self._pending = pending
        self._workers = workers

    async def row(
        self,
        initial: Mapping[str, NDArray[np.float32]],
        field: str,
        caller: Caller,
        source: SequenceInput | None = None,
    ) -> StateRow | None:
        """Return the state before the first step of a sequence; None: the model's constant start.

        Args:
            initial: inputs of the init graph, float32 (size,) by name.
            field: their path in the request.
            caller: who asks.
            source: what an encoder reads, the request's field `source`; None: there is none.

        Raises:
            InvalidArgument: they are not those that the model takes.
            Overloaded: too many sources wait for the encoder.
            DeadlineExceeded: the deadline passed before the graph ran.
            ModelFailure: the graph failed, or gave a state of another shape, or one that is not finite.
        """
        self._check(initial, field)
        rows: dict[str, NDArray[Any]] = {name: values[None] for name, values in initial.items()}
        if self.source is not None:
            rows[SOURCE] = (await self.source.read(source, caller))[None]
        elif source is not None:
            raise no_source()
        if self._init is None:
            return None
        with nullcontext() if self._pending is None else self._pending.place(caller.client):
            found = await self._workers.run(caller, self._init.run, rows)
        for one in self._states:
            if one.input in found:
                _check_computed(one, found[one.input])
        return tuple(found[one.input][0] if one.input in found else _constant(one) for one in self._states)

    def _check(self, initial: Mapping[str, NDArray[np.float32]], field: str) -> None:
        if initial.keys() != self._sizes.keys():
            expected = ", ".join(self._sizes) or "none, since the model has no init graph"
            found = ", ".join(map(shown, list(initial)[:20])) or "none"
            raise InvalidArgument(field, f"expected the inputs of the init graph ({expected}), found {found}")
        for name, size in self._sizes.items():
            values = initial[name]
            if len(values) != size:
                raise InvalidArgument(
                    f"{field}[{name}].values", f"expected {size} values, found {len(values)}"
                )
            if not np.isfinite(values).all():
                index = int(np.argmin(np.isfinite(values)))
                raise InvalidArgument(
                    f"{field}[{name}].values[{index}]", f"expected a finite number, found {values[index]}"
                )


def _check_computed(state: State, found: NDArray[np.float32]) -> None:
    """Raise ModelFailure unless a computed state is finite and of the shape that the network takes."""
    if found.shape != (1, state.size) or not np.isfinite(found).all():
        raise ModelFailure(
            f"the init graph must give 1 x {state.size} finite numbers for {state.input}, "
            f"found {' x '.join(map(str, found.shape))}, or some that are infinite or no numbers"
        )


def _constant(state: State) -> NDArray[np.float32]:
    """Return the constant start of a state that the init graph does not compute, float32 (size,)."""
    return np.full(state.size, state.start, np.float32)
