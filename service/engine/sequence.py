"""One sequence in flight: what goes in, what is wanted, how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Sampling

# A row of recurrent state: float32 (H,) a state tensor, in the order of the model's state.
StateRow = tuple[NDArray[np.float32], ...]


_PLAIN = Sampling()


class Trace(Protocol):
    """Whoever wants to know, once a call is over, when its sequences came how far."""

    def add(self, sequences: "list[Sequence]") -> None:
        """Take sequences of the call that are in the queue now; their times are stamped as they go on."""
        ...


class Caller(NamedTuple):
    """Who asks, and until when he waits.

    Attributes:
        deadline: monotonic seconds at which he gives up; None: he waits.
        client: whom the request belongs to: callers of one name share what is scarce, callers of different
            names get equal parts of it.
        trace: is told of his sequences; None: nobody asks.
    """

    deadline: float | None = None
    client: str = ""
    trace: Trace | None = None


ANYONE = Caller()


class Goal(Enum):
    """What a sequence is run for."""

    LAST = "the head's output at the last step"
    SCORE = "the log-probability of each token given those before it"
    GENERATE = "tokens, each fed back as the next input"


class Receiver(Protocol):
    """Where a sequence's results go."""

    def receive(self, result: Any) -> None:
        """Take a result, in the event loop.

        LAST: an array, or `Ended` where the state is kept; SCORE: an array; GENERATE: `Tokens`, again and
            again. Or an exception. After an
        exception, an array, `Ended` or the last `Tokens` nothing more comes.
        """
        ...

    @property
    def backlog(self) -> int:
        """Tokens received and not yet taken by the reader."""
        ...

    @property
    def most_backlog(self) -> int:
        """The backlog at which the row pauses."""
        ...


class Tokens(NamedTuple):
    """Tokens generated since the last ones, at least one.

    Attributes:
        ids: in order.
        logprobs: natural log, one a token; none where nobody asked.
        is_last: the sequence ends with them.
        state: before the last of them is fed, where it is kept; with the last ones alone.
    """

    ids: list[int]
    logprobs: list[float]
    is_last: bool
    state: StateRow | None = None


class Ended(NamedTuple):
    """The head's output at the last step, float32 (outputs,), and the state after it."""

    output: NDArray[np.float32]
    state: StateRow


@dataclass(slots=True, eq=False)
class Sequence:
    """One request's row.

    Attributes:
        inputs: int64 (T,) or float32 (T, F), at least one step.
        goal: what it is run for.
        receiver: where results go.
        submitted_at: monotonic seconds.
        deadline: monotonic seconds, or None.
        sampling: how tokens are picked (GENERATE).
        max_tokens: tokens to generate (GENERATE).
        wants_logprobs: each token's log-probability is asked for (GENERATE).
        state: before the first step; None: zeros, the start of a sequence.
        keeps_state: the result is `Ended` (LAST), or the last `Tokens` have a state (GENERATE).
        position: tokens of the sequence before `inputs` (GENERATE).
        client: whom it belongs to (`Caller.client`).
        home: the engine of its group that it is given to.
        is_over: it ended, for whatever reason; set once, by the engine alone.
        pieces: log-probabilities so far (SCORE).
        parked: row of a sequence that is ready to generate while it holds no slot.
        paused: how far it is while it has input left and holds no slot.
        seated_in: the engine's turn in which it last got its row.
        seated_at: monotonic seconds at which it got its first row, or was given another's run of its prompt;
            0: not yet.
        prefilled_at: when its prompt was run or found (GENERATE); 0: not yet, or there was nothing to
            prefill.
        ended_at: when it ended; 0: not yet, or with its engine.
    """

    inputs: NDArray[Any]
    goal: Goal
    receiver: Receiver
    submitted_at: float
    deadline: float | None = None
    sampling: Sampling = _PLAIN
    max_tokens: int = 0
    wants_logprobs: bool = False
    state: StateRow | None = None
    keeps_state: bool = False
    position: int = 0
    client: str = ""
    home: int = 0
    is_over: bool = False
    pieces: list[NDArray[np.float32]] | None = None
    parked: "ParkedRow | None" = None
    paused: "PausedRow | None" = None
    seated_in: int = 0
    seated_at: float = 0.0
    prefilled_at: float = 0.0
    ended_at: float = 0.0

    @property
    def prefill_steps(self) -> int:
        """Steps that chunk ticks run.

        LAST: all of the input. SCORE: all but the last, which is only predicted. GENERATE: all but the last,
            which a step tick feeds, so that only
        step ticks sample.
        """
        return len(self.inputs) - (self.goal is not Goal.LAST)


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A generating row without a slot: its state (None: zeros), and its values in the pool's columns."""

    state: StateRow | None
    values: Mapping[str, Any]


class PausedRow(NamedTuple):
    """A row with input left and without a slot: the steps that have been run, and the state after them."""

    steps: int
    state: StateRow


Result = tuple[Sequence, Any]
Post = Callable[[list[Result]], None]
