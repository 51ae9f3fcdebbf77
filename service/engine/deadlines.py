"""Deadlines of an engine's rows. Plain and pure: time comes in as an argument."""

import heapq
from collections.abc import Iterator
from itertools import count

from service.engine.request import Row

# Entries of rows that are over are kept in the heap up to so many, and twice the number of the others.
_MAX_STALE = 1000


class Deadlines:
    """A heap of deadlines. Rows that are over are forgotten at once, their small heap entries lazily."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._rows: dict[int, Row] = {}
        self._numbers: dict[Row, int] = {}
        self._next_number = count()

    def __len__(self) -> int:
        return len(self._rows)

    def next(self) -> float | None:
        """Return the earliest deadline, None where there is none."""
        while self._heap and self._heap[0][1] not in self._rows:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, row: Row) -> None:
        """Watch a row, unless it has no deadline."""
        if row.deadline is None:
            return
        number = self._numbers[row] = next(self._next_number)
        self._rows[number] = row
        heapq.heappush(self._heap, (row.deadline, number))
        if len(self._heap) > _MAX_STALE + 2 * len(self._rows):
            self._heap = [entry for entry in self._heap if entry[1] in self._rows]
            heapq.heapify(self._heap)

    def discard(self, row: Row) -> None:
        """Forget a row that is over."""
        if row.deadline is not None and (number := self._numbers.pop(row, None)) is not None:
            del self._rows[number]

    def take_expired(self, now: float) -> Iterator[Row]:
        """Yield and forget the rows whose deadline has passed."""
        while self._heap and self._heap[0][0] <= now:
            _, number = heapq.heappop(self._heap)
            row = self._rows.pop(number, None)
            if row is not None:
                del self._numbers[row]
                yield row
