"""How other threads wake an engine's: cheaper than an Event, whose lock and list of waiters cost more than a
small model's step.

A call that finds the thread awake costs one assignment.
"""

import os
from contextlib import suppress
from queue import Empty, SimpleQueue

_YIELDS = 10


class Signal:
    """One thread waits; any thread gives news."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._has_news = False
        self._is_asleep = False

    def give(self) -> None:
        """There is news: whoever waits goes on, whoever is about to wait does not."""
        self._has_news = True
        if self._is_asleep:
            self._is_asleep = False
            self._queue.put(None)

    def clear(self) -> None:
        """What was given so far is about to be looked at."""
        self._has_news = False

    def wait(self, timeout_s: float | None) -> None:
        """Until there is news since `clear`, or time is up; now and then for nothing."""
        self._is_asleep = True
        # News from before that line has not been put into the queue; news after it is, at worst once more
        # than needed.
        if not self._has_news:
            with suppress(Empty):
                self._queue.get(timeout=timeout_s)
        self._is_asleep = False


def let_others_run() -> None:
    """Where the event loop shares this core, the first of many messages has just come: it may hand over those
    that came with it, so that they run in one tick instead of one each. Where the core is free this returns
    at once.
    """
    for _ in range(_YIELDS):
        os.sched_yield()
