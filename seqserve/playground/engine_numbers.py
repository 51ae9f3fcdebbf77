"""The numbers beside the picture of an engine: rates over the last second, of the counters of a watch."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from seqserve.engine_results import EngineCounters, EngineTicks

# Seconds over which rates are taken, and over which the time to first token is, which has fewer samples.
WINDOW_S: Final = 1.0
FIRST_TOKEN_WINDOW_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class EngineNumbers:
    """The numbers that a page shows of an engine. None stands for no event in the window.

    Attributes:
        rows: Rows of a tick, mean.
        active: Sequences that hold a slot.
        waiting: Sequences that wait for one.
        useful: Share of the computed time steps that are valid, 0..1.
        steps_per_s: Valid time steps per second.
        ticks_per_s: Ticks per second.
        tokens_per_s: Tokens generated per second.
        first_token_s: Mean time to first token, in seconds.
        dropped: Ticks that the server has left out since the watch began.
    """

    rows: float | None
    active: int
    waiting: int
    useful: float | None
    steps_per_s: float
    ticks_per_s: float
    tokens_per_s: float
    first_token_s: float | None
    dropped: int


class EngineWindow:
    """The counters of the last seconds of a watch."""

    def __init__(self) -> None:
        self._counters: deque[tuple[float, EngineCounters]] = deque()
        self._dropped = 0

    def add(self, item: EngineTicks) -> EngineNumbers:
        """Take an item of a watch, and return the numbers after it."""
        now, counters = item.now_s, item.counters
        if self._counters and counters.ticks < self._counters[-1][1].ticks:
            self._counters.clear()  # another version counts from 0
        self._counters.append((now, counters))
        while len(self._counters) > 2 and self._counters[1][0] <= now - FIRST_TOKEN_WINDOW_S:
            self._counters.popleft()
        self._dropped += item.dropped_ticks
        began, before = self._before(now - WINDOW_S)
        _, long_before = self._counters[0]
        seconds = max(now - began, 1e-3)
        useful = counters.useful_steps - before.useful_steps
        padded = counters.padded_steps - before.padded_steps
        first_tokens = counters.first_tokens - long_before.first_tokens
        first_token_s = counters.time_to_first_token_s - long_before.time_to_first_token_s
        return EngineNumbers(
            rows=_ratio(counters.rows - before.rows, counters.ticks - before.ticks),
            active=item.active_sequences,
            waiting=item.waiting_sequences,
            useful=_ratio(useful, useful + padded),
            steps_per_s=useful / seconds,
            ticks_per_s=(counters.ticks - before.ticks) / seconds,
            tokens_per_s=(counters.tokens_generated - before.tokens_generated) / seconds,
            first_token_s=_ratio(first_token_s, first_tokens),
            dropped=self._dropped,
        )

    def _before(self, seconds: float) -> tuple[float, EngineCounters]:
        """Return the latest counters from before a time, or the oldest."""
        found = self._counters[0]
        for one in self._counters:
            if one[0] > seconds:
                break
            found = one
        return found


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
