"""Whose time is up. Plain and pure: time comes in as an argument."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import count

from service.engine.sequence import Sequence

_MOST_STALE = 1000


class Deadlines:
    """Sequences by their deadlines; those that are over leave when they are in the way."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Sequence]] = []
        self._tie_breaker = count()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def next(self) -> float | None:
        """The earliest, None where there is none."""
        return self._entries[0][0] if self._entries else None

    def add(self, sequences: Iterable[Sequence], num_alive: int) -> None:
        """Watch those of the sequences that have a deadline.

        Args:
            sequences: that have come.
            num_alive: sequences of the engine that are not over.
        """
        for sequence in sequences:
            if sequence.deadline is not None:
                heapq.heappush(self._entries, (sequence.deadline, next(self._tie_breaker), sequence))
        if len(self._entries) > _MOST_STALE + 2 * num_alive:
            # Behind one early deadline, those that are over would be kept, inputs and all, until it passes.
            self._entries = [entry for entry in self._entries if not entry[2].is_over]
            heapq.heapify(self._entries)

    def take_late(self, now: float) -> Iterator[Sequence]:
        """Those out of time that are not over, each once."""
        while self._entries and self._entries[0][0] <= now:
            _, _, sequence = heapq.heappop(self._entries)
            if not sequence.is_over:
                yield sequence
