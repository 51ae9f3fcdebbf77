"""Sizes of an engine."""

from dataclasses import dataclass

BUDGET_S = 0.0015
MAX_PADDING = 0.1


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
