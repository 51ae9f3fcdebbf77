"""Fakes for tests of whole batches: a cell that computes the fake network over whole sequences, and an engine
that a test drives by hand.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Row
from service.engine.whole import WholeEngine
from service.errors import ModelFailure
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import SHAPE, START, VOCABULARY, Bench, advance, last_of, logits_of


class FakeWholeCell:
    """Computes whole sequences with `advance` and `logits_of`, and checks what it is given.

    Args:
        is_pooled: one output a sequence, else one a time step.
        takes_lengths: rows of a run may have different lengths.
        failures: numbers of the runs, from 0, that fail.

    Attributes:
        is_faulty: raise what no runtime should.
        runs: lengths of the rows of every run so far.
    """

    is_faulty = False

    def __init__(
        self, is_pooled: bool = False, takes_lengths: bool = True, failures: Iterable[int] = ()
    ) -> None:
        self.is_pooled = is_pooled
        self.takes_lengths = takes_lengths
        self.failures = frozenset(failures)
        self.runs: list[list[int]] = []

    def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:
        assert (lengths is not None) == self.takes_lengths
        found = [inputs.shape[1]] * len(inputs) if lengths is None else self._checked(inputs, lengths)
        if self.is_faulty:
            raise ZeroDivisionError("a fault in the cell")
        self.runs.append(found)
        if len(self.runs) - 1 in self.failures:
            raise ModelFailure(f"run {len(self.runs) - 1} was told to fail")
        output: NDArray[np.float32] = np.full((*inputs.shape, VOCABULARY), np.nan, np.float32)
        for row, length in enumerate(found):
            state = START
            for step, token in enumerate(inputs[row, :length].tolist()):
                state = advance(state, token)
                output[row, step] = logits_of(state)
        if self.is_pooled:
            output = output[np.arange(len(found)), np.array(found) - 1]
        return output

    @staticmethod
    def _checked(inputs: NDArray[Any], lengths: NDArray[np.int32]) -> list[int]:
        assert inputs.dtype == np.int64
        assert lengths.dtype == np.int32
        found: list[int] = lengths.tolist()
        assert max(found) == inputs.shape[1], "no step is computed for nobody"
        assert min(found) >= 1
        return found


class WholeBench(Bench):
    """A whole engine in a group of its own, driven by hand as `Bench` is.

    Args:
        slots: rows of a batch.
        steps: time steps of a batch.
        max_waiting: bound of the group.
        cell: computes.
        clock: returns seconds; None: `now`.
        others: further limits of the engine.
    """

    def __init__(
        self,
        slots: int = 4,
        steps: int = 1000,
        max_waiting: int = 100,
        cell: Any = None,
        clock: Callable[[], float] | None = None,
        **others: Any,
    ) -> None:
        self.now = 0.0
        self.posts = []
        self.cell = cell or FakeWholeCell()
        self.metrics = EngineMetrics()
        limits = Limits(slots, steps, chunk_steps=steps, **others)
        engine = WholeEngine("fake", self.cell, SHAPE, limits, self.metrics, clock or (lambda: self.now))
        self.engine = engine  # type: ignore[assignment]
        self.group = EngineGroup([engine], max_waiting)


def rows_of(lengths: Iterable[int], client: str = "") -> list[Row]:
    """Return rows of these lengths."""
    return [last_of([1] * length, client=client) for length in lengths]


def lengths_of(rows: Sequence[Row]) -> list[int]:
    return [len(row.request.inputs) for row in rows]
