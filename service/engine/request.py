"""One sequence in flight: its request, its row, which says how far it is, and its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Sampling
from service.observability.times import Times
from service.observability.traced import Trace

# One row of recurrent state: float32 (H,) a state tensor, in the order of the model's state.
StateRow = tuple[NDArray[np.float32], ...]

_PLAIN = Sampling()


class Goal(Enum):
    """The purposes of a sequence."""

    LAST = "the head's output at the last step"
    EVERY = "the head's output at each step"
    SCORE = "the log-probability of each token given those before it"
    GENERATE = "tokens, each fed back as the next input"


# What these predict is the step after the last one that is run.
_FEEDS_BACK = (Goal.SCORE, Goal.GENERATE)


class Request(NamedTuple):
    """One sequence to run. Nothing changes it once it is submitted.

    Attributes:
        inputs: (T,) token ids, integers of any width, or float32 (T, F) feature rows, T >= 1.
        goal: what it is run for.
        sampling: how tokens are picked (GENERATE).
        max_tokens: tokens to generate (GENERATE).
        wants_logprobs: each token's log-probability is asked for (GENERATE).
        state: state before the first step; None: the start of a sequence.
        keeps_state: the output is `Final` (LAST, EVERY), or the last `TokenBatch` has a state (GENERATE).
        position: tokens of the sequence before `inputs` (GENERATE).
        cache_scope: callers who may find the cached states of each other's prompts have the same (GENERATE).
        keeps_states: every `TokenBatch` has a state, not the last alone (GENERATE).
        num_alternatives: most likely tokens wanted at each position, beside its log-probability (SCORE).
    """

    inputs: NDArray[Any]
    goal: Goal
    sampling: Sampling = _PLAIN
    max_tokens: int = 0
    wants_logprobs: bool = False
    state: StateRow | None = None
    keeps_state: bool = False
    position: int = 0
    cache_scope: str = ""
    keeps_states: bool = False
    num_alternatives: int = 0

    @property
    def prefill_steps(self) -> int:
        """Steps that chunk ticks run.

        LAST and EVERY run all of the input. SCORE runs all but the last, which is only predicted. GENERATE
        runs all but the last, which a step tick feeds, so that only step ticks sample.
        """
        return len(self.inputs) - (self.goal in _FEEDS_BACK)


class TokenBatch(NamedTuple):
    """Tokens generated since the last batch, at least one.

    Attributes:
        ids: token ids in order.
        logprobs: natural log, one a token; empty unless asked for.
        is_last: the sequence ends with them.
        state: state before the last of them is fed, where it is kept; otherwise None.
    """

    ids: list[int]
    logprobs: list[float]
    is_last: bool
    state: StateRow | None = None


class Final(NamedTuple):
    """The head's output, float32 (outputs,) or (T, outputs) of every step, and the state after the last."""

    output: NDArray[np.float32]
    state: StateRow


class Receiver(Protocol):
    """The end at which a row's outputs arrive."""

    def receive(self, output: Any) -> None:
        """Take an output in the event loop.

        LAST, EVERY and SCORE: one array, or `Final` where the state is kept; SCORE has the columns of
        `with_alternatives` where they are wanted. GENERATE: `TokenBatch` after `TokenBatch`. An exception
        ends any of them; nothing comes after it or after the last output.
        """
        ...

    @property
    def backlog(self) -> int:
        """Tokens received and not yet taken by the reader. The engine reads it from its own thread."""
        ...

    @property
    def max_backlog(self) -> int:
        """The backlog at which the row is suspended until the reader catches up."""
        ...


@dataclass(frozen=True, slots=True)
class SuspendedRow:
    """A row that holds no slot: it was preempted, its reader is slow, or both.

    Attributes:
        steps: prefill steps that have been run.
        state: state after them; None: nothing has been run.
        columns: its values in the decode pool, of a row that generates; None: it has prefill steps left.
    """

    steps: int
    state: StateRow | None
    columns: Mapping[str, Any] | None = None


@dataclass(slots=True, eq=False)
class Account:
    """How many rows of one client have been submitted to each engine of a model and have left its queue.

    Each number has one writer: callers write `submitted`, under their lock, and an engine its place of
    `left`.

    Attributes:
        submitted: rows handed to each engine, less those that callers told it to evict.
        submitted_steps: their prefill steps.
        left: rows that were admitted for the first time, or ended before.
        left_steps: their prefill steps.
    """

    submitted: list[int]
    submitted_steps: list[int]
    left: list[int]
    left_steps: list[int]

    @classmethod
    def of_engines(cls, count: int) -> "Account":
        """Return an empty account for so many engines."""
        return cls([0] * count, [0] * count, [0] * count, [0] * count)

    def waiting_in(self, engine: int) -> int:
        """Return the rows that wait in one engine for their first admission."""
        return self.submitted[engine] - self.left[engine]

    @property
    def waiting(self) -> int:
        """Rows that wait in all engines for their first admission."""
        return sum(self.submitted) - sum(self.left)


@dataclass(slots=True, eq=False)
class Row:
    """A request on its way through one engine. The engine alone changes it after it is submitted.

    Attributes:
        request: what to run.
        receiver: where outputs go.
        times: when it got how far.
        deadline: monotonic seconds, or None.
        client: fairness key; clients share slots and queue places equally.
        account: its client's numbers; None until it is submitted.
        engine: which engine of its group it belongs to.
        admitted_in: the engine's turn in which it last got a slot.
        suspended: how far it is while it holds no slot and has begun.
        pieces: outputs so far, a piece a chunk tick: log-probabilities (SCORE) or the head's (EVERY).
        has_begun: it has held a slot.
        is_over: it has ended, for whatever reason.
    """

    request: Request
    receiver: Receiver
    times: Times
    deadline: float | None = None
    client: str = ""
    account: Account | None = None
    engine: int = 0
    admitted_in: int = 0
    suspended: SuspendedRow | None = None
    pieces: list[NDArray[np.float32]] | None = None
    has_begun: bool = False
    is_over: bool = False

    @property
    def generates(self) -> bool:
        """True if its outputs are tokens."""
        return self.request.goal is Goal.GENERATE

    @property
    def prefill_steps(self) -> int:
        """Steps that chunk ticks run for it in all."""
        return self.request.prefill_steps

    @property
    def prefill_steps_left(self) -> int:
        """Steps that chunk ticks have still to run for it while it waits."""
        steps = self.request.prefill_steps
        return steps if self.suspended is None else steps - self.suspended.steps


class Caller(NamedTuple):
    """The caller of a request.

    Attributes:
        deadline: monotonic seconds at which the caller gives up; None: never.
        client: fairness key of its requests.
        cache_scope: see `Request`.
        trace: is told of its rows; None: the call is not traced.
    """

    deadline: float | None = None
    client: str = ""
    trace: Trace | None = None
    cache_scope: str = ""


ANYONE = Caller()

Output = tuple[Row, Any]
