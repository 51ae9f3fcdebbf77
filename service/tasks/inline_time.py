"""Bounds the time that long work takes in the event loop, for all calls together."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

# Part of the time that work may take. A method takes in one call a pass of the event loop, so that a newcomer
# waits for the passes of all calls before its own, and other threads compete with the loop for the cores.
SHARE = 0.1
# Seconds that work may take at once after a time without any.
BURST_S = 0.005


class InlineTime:
    """A bucket of seconds, which fills with time and from which each run in the event loop takes its own.

    A run may take more than is left, and the next runs then wait until that is filled up. So within t seconds
    runs take at most SHARE * t + BURST_S + the seconds of one run. Used from the event loop alone.

    Args:
        clock: returns seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_s = BURST_S
        self._filled_at = clock()

    def is_left(self) -> bool:
        """Fill the bucket up to now, and return whether a run may begin."""
        now = self._clock()
        self._left_s = min(BURST_S, self._left_s + SHARE * (now - self._filled_at))
        self._filled_at = now
        return self._left_s > 0

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function here, and take from the bucket the seconds that it needs, also if it raises."""
        started = self._clock()
        try:
            return function(*arguments)
        finally:
            self._left_s -= self._clock() - started
