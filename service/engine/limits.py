"""Sizes of an engine."""

from dataclasses import dataclass

BUDGET_S = 0.0015
MAX_PADDING = 0.1
# Seconds that a turn costs beside its chunk tick: handing over to the event loop, and its pass over the
# answers. With ticks as long as follows, 7 % more texts of mixed lengths a second go through unary calls
# (benchmarks, row P1), for 10 to 25 % less of a busy processor; hardly more with twice as much.
TURN_S = 2e-4


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of an engine's ticks, queue and prompt cache.

    Attributes:
        slots: rows active side by side.
        chunk: time steps of a chunk tick at most.
        chunk_rows: rows of a chunk tick at most; 0: as many as slots.
        chunk_steps: time steps of all rows in a chunk tick at most; 0: as many as rows and chunk allow.
        overhead: a chunk tick's fixed cost, in steps of one row; of a batch of whole sequences: a time step's
            fixed cost, in rows.
        write_interval_s: shortest time between two batches of a stream's tokens, after the first.
        write_interval_row_s: the same for each generating row, added.
        prompt_cache_bytes: kept states of prompts.
        shares_prompts: a prompt is found whatever its `Request.cache_scope`.
        budget_s: seconds of a turn's bookkeeping, whatever waits; the rest goes on in the next turn.
        steps_per_second: time steps of all rows in full ticks, measured before the first request; 0: unknown.
        max_padding: part of the time steps of a batch of whole sequences that may be padding; 0: sequences of
            equal length alone share a batch.
    """

    slots: int
    chunk: int
    chunk_rows: int = 0
    chunk_steps: int = 0
    overhead: float = 8.0
    write_interval_s: float = 0.0
    write_interval_row_s: float = 0.0
    prompt_cache_bytes: int = 0
    shares_prompts: bool = False
    budget_s: float = BUDGET_S
    steps_per_second: float = 0.0
    max_padding: float = MAX_PADDING

    @property
    def turn_overhead(self) -> float:
        """Return what a turn with a chunk tick costs whatever its steps, in steps of one row."""
        return self.overhead + TURN_S * self.steps_per_second
