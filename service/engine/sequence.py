"""One sequence in flight: what goes in, what is wanted, how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Sampling


class Goal(Enum):
    """What a sequence is run for."""

    LAST = "the head's output at the last step"
    SCORE = "the log-probability of each token given those before it"
    GENERATE = "tokens, each fed back as the next input"


class Receiver(Protocol):
    """Where a sequence's results go."""

    def receive(self, result: Any) -> None:
        """Take a result, in the event loop: an array (LAST, SCORE), `Generated` (GENERATE) or an exception, after which nothing more comes."""
        ...

    @property
    def backlog(self) -> int:
        """Tokens received and not yet taken by the reader."""
        ...

    @property
    def most_backlog(self) -> int:
        """The backlog at which the row pauses."""
        ...


class Generated(NamedTuple):
    """One token: its id, its log-probability (natural log; NaN when nobody asked), whether it is the sequence's last."""

    token: int
    logprob: float
    is_last: bool


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
        consumed: steps of `inputs` already run.
        is_over: it ended, for whatever reason; set once, by the engine alone.
        pieces: log-probabilities so far (SCORE).
        parked: state rows of a sequence whose reader is slow, while it holds no slot.
    """

    inputs: NDArray[Any]
    goal: Goal
    receiver: Receiver
    submitted_at: float
    deadline: float | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 0
    wants_logprobs: bool = False
    consumed: int = 0
    is_over: bool = False
    pieces: list[NDArray[np.float32]] = field(default_factory=list)
    parked: "ParkedRow | None" = None

    @property
    def to_prefill(self) -> int:
        """Steps left for chunk ticks.

        LAST: all of the input. SCORE: all but the last, which is only predicted. GENERATE: all but the last, which a step tick feeds, so that only
        step ticks sample.
        """
        return len(self.inputs) - self.consumed - (self.goal is not Goal.LAST)


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A generating row taken out of its slot: float32 (H,) a state tensor, and its record in the pool."""

    state: tuple[NDArray[np.float32], ...]
    record: NDArray[np.void]


Result = tuple[Sequence, Any]
Post = Callable[[list[Result]], None]
