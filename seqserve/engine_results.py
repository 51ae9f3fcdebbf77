"""Results of a watch of engines: immutable dataclasses, the same for both clients."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class TickKind(StrEnum):
    """Kind of a tick."""

    CHUNK = "chunk"
    """A few time steps of rows whose input is given."""
    STEP = "step"
    """One time step or a few of rows that generate."""
    WHOLE = "whole"
    """Whole sequences of nearly the same length."""
    UNKNOWN = "unknown"
    """The server sent a kind that this version of the client does not know."""


class RowKind(StrEnum):
    """The purposes for which a tick runs a row."""

    PREFILL = "prefill"
    """The prompt of a generation."""
    DECODE = "decode"
    """A generation: each sampled token is the next step's input."""
    LAST = "many to one"
    """A sequence whose last output alone is wanted."""
    EVERY = "many to many"
    """A sequence whose every output is wanted."""
    SCORE = "score"
    """A text whose tokens are scored."""
    UNKNOWN = "unknown"
    """The server sent a kind that this version of the client does not know."""


class TickRow(NamedTuple):
    """A row of a tick.

    Attributes:
        slot: Number of the slot that the row holds, from 0.
        sequence: Number of the sequence within its engine, counted while somebody watches.
        kind: What the row is run for.
        steps: Valid time steps of the row in this tick.
    """

    slot: int
    sequence: int
    kind: RowKind
    steps: int


@dataclass(frozen=True, slots=True)
class EngineTick:
    """One tick of an engine: one run of the network over some rows.

    Attributes:
        engine: Number of the engine, from 0.
        kind: Kind of the tick.
        start_s: When its turn began, in seconds since the watch began; below 0 if before that.
        duration_s: Time of the turn up to the end of the run, in seconds.
        steps: Time steps computed of each row. A row's padding is what it has fewer.
        waiting_sequences: Sequences that wait for a slot of this engine.
        rows: The rows.
    """

    engine: int
    kind: TickKind
    start_s: float
    duration_s: float
    steps: int
    waiting_sequences: int
    rows: tuple[TickRow, ...]

    @property
    def useful_steps(self) -> int:
        """Valid time steps of all rows."""
        return sum(row.steps for row in self.rows)

    @property
    def padded_steps(self) -> int:
        """Time steps computed beyond the rows' valid ones."""
        return self.steps * len(self.rows) - self.useful_steps


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """Counts of all engines of a version since it was loaded, each a part of the metric of the same name.

    Attributes:
        ticks: Ticks of all kinds.
        rows: Rows of all ticks; a row counts in each of its ticks.
        useful_steps: Valid time steps that were computed.
        padded_steps: Time steps that were computed beyond a row's valid ones.
        tokens_generated: Tokens sampled.
        first_tokens: Generations that have had their first token.
        time_to_first_token_s: Sum of the times from their arrival to their first token, in seconds.
        admitted: Sequences that have had a slot.
        queue_s: Sum of the times from their arrival to their first slot, in seconds.
        cancelled: Sequences cancelled by their caller.
        paused: Rows preempted so that another client gets its share.
        prompt_cache_hits: Prompts that started from a cached state.
    """

    ticks: int
    rows: int
    useful_steps: int
    padded_steps: int
    tokens_generated: int
    first_tokens: int
    time_to_first_token_s: float
    admitted: int
    queue_s: float
    cancelled: int
    paused: int
    prompt_cache_hits: int


@dataclass(frozen=True, slots=True)
class EngineTicks:
    """An item of a watch: the ticks that the engines of a version have run since the item before.

    Attributes:
        model: Name of the model.
        version: Version that is watched.
        now_s: When the server made the item, in seconds since the watch began.
        slots: Slots of each engine of the version.
        ticks: Ticks that have ended since the item before; those of one engine oldest first.
        dropped_ticks: Ticks since the item before that the server left out.
        active_sequences: Sequences that hold a slot.
        waiting_sequences: Sequences that wait for a slot.
        counters: Counts since the version was loaded, with all ticks.
    """

    model: str
    version: int
    now_s: float
    slots: tuple[int, ...]
    ticks: tuple[EngineTick, ...]
    dropped_ticks: int
    active_sequences: int
    waiting_sequences: int
    counters: EngineCounters
