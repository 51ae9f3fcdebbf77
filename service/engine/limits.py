"""How much an engine takes on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an engine takes on.

    Attributes:
        slots: sequences active side by side.
        chunk: most time steps a chunk tick.
        max_waiting: sequences that may wait for a slot.
        chunk_rows: most sequences in a chunk tick; 0: as many as slots.
        overhead: a chunk tick's fixed cost, in steps of one row.
        gather_s: shortest time between two lumps of a stream's tokens, after the first.
        gather_row_s: the same for each generating row: with many streams their lumps grow, so that handing
            them over takes a bounded share of time.
        prompt_cache_bytes: kept states of prompts.
        steps_per_second: time steps of all rows in full chunk ticks, as measured before the first request; 0:
            unknown.
    """

    slots: int
    chunk: int
    max_waiting: int
    chunk_rows: int = 0
    overhead: float = 8.0
    gather_s: float = 0.0
    gather_row_s: float = 0.0
    prompt_cache_bytes: int = 0
    steps_per_second: float = 0.0
