"""Chooses the rows of the next batch of whole sequences: a pure function, which changes nothing.

The row that has waited longest begins a batch, and rows of nearly the same length join it. There is no
minimum and no delay: what waits runs.
"""

from bisect import bisect_left
from collections import deque

from service.engine.length_queue import Entry, LengthQueue
from service.engine.request import Row

# Clients that are asked for rows of one batch, those whose places are next.
MAX_CLIENTS = 64


def pick_batch(queue: LengthQueue, max_rows: int, max_steps: int, max_padding: float) -> list[Row]:
    """Return the rows that run next, first the one that has waited longest.

    Clients give the rows beside it in rounds, one row each, so that a client with many waiting takes no place
    of one with few; each gives the row whose length is nearest to the first one's.

    Args:
        queue: holds at least one row.
        max_rows: rows of a batch at most.
        max_steps: time steps of all rows at most, padding included; a longer sequence runs alone.
        max_padding: part of these steps that may be padding; 0: rows of equal length alone.
    """
    first = queue.next_row()
    batch = _Batch(first, max_steps, max_padding)
    others = [entries for client, entries in queue.in_place(MAX_CLIENTS) if client != first.client]
    lines = deque(_Nearest(entries, first) for entries in (*others, queue.of_client(first.client)))
    while lines and len(batch.rows) < max_rows:
        line = lines.popleft()
        entry = line.next_in(batch)
        if entry is not None:
            batch.add(entry)
            lines.append(line)
    return batch.rows


class _Batch:
    """The rows chosen so far."""

    def __init__(self, first: Row, max_steps: int, max_padding: float) -> None:
        self.rows = [first]
        self._steps = self._longest = len(first.request.inputs)
        self._max_steps = max_steps
        self._max_useful = 1.0 - max_padding

    def fits(self, length: int) -> bool:
        """Return whether the batch keeps its bounds with one more row."""
        computed = max(self._longest, length) * (len(self.rows) + 1)
        return computed <= self._max_steps and self._steps + length >= self._max_useful * computed

    def add(self, entry: Entry) -> None:
        """Add a row that fits."""
        self.rows.append(entry.row)
        self._steps += entry.length
        self._longest = max(self._longest, entry.length)


class _Nearest:
    """A client's rows but the first of the batch, those with lengths nearest to its first."""

    def __init__(self, entries: list[Entry], first: Row) -> None:
        self._entries = entries
        self._first = first
        self._length = len(first.request.inputs)
        self._longer = bisect_left(entries, (self._length,))  # the next of at least that length
        self._shorter = self._longer - 1

    def next_in(self, batch: _Batch) -> Entry | None:
        """Return the next row that fits into a batch, None where none does any more.

        Where one does not fit, those beyond it on the same side are taken not to fit either.
        """
        while (is_longer := self._is_longer_next()) is not None:
            entry = self._entries[self._longer if is_longer else self._shorter]
            is_first = entry.row is self._first
            fits = is_first or batch.fits(entry.length)
            if is_longer:
                self._longer = self._longer + 1 if fits else len(self._entries)
            else:
                self._shorter = self._shorter - 1 if fits else -1
            if fits and not is_first:
                return entry
        return None

    def _is_longer_next(self) -> bool | None:
        """Return whether the nearest row is one of at least that length; None where no row is left."""
        has_longer = self._longer < len(self._entries)
        if self._shorter < 0:
            return True if has_longer else None
        if not has_longer:
            return False
        above = self._entries[self._longer].length - self._length
        return above <= self._length - self._entries[self._shorter].length
