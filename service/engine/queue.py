"""Rows that wait for a slot: a line for each client, and turns that go round the clients. Plain and pure.

A client that asks for much waits for its own requests: it takes neither the turn nor the place in the queue
of one that asks for little.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, KeysView

from service.engine.request import Row

Line = OrderedDict[Row, None]


class FairQueue:
    """Waiting rows by client. Every operation but `newest` and iteration takes constant time.

    Attributes:
        steps: prefill steps that the waiting rows have left.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, Line] = OrderedDict()  # the first one's turn is next
        self._count = 0
        self.steps = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, row: Row) -> bool:
        line = self._lines.get(row.client)
        return line is not None and row in line

    @property
    def clients(self) -> KeysView[str]:
        """Clients with waiting rows, the one whose turn is next first."""
        return self._lines.keys()

    def append(self, row: Row) -> None:
        """Put a row at the end of its client's line."""
        self._line_of(row)[row] = None

    def append_first(self, row: Row) -> None:
        """Put a row at the head of its client's line."""
        line = self._line_of(row)
        line[row] = None
        line.move_to_end(row, last=False)

    def _line_of(self, row: Row) -> Line:
        """Return the line that a row is put into, and count the row."""
        line = self._lines.get(row.client)
        if line is None:
            line = self._lines[row.client] = OrderedDict()
        assert row not in line, "a row waits once"
        self._count += 1
        self.steps += row.prefill_steps_left
        return line

    def remove(self, row: Row) -> None:
        """Take out a row that waits, at no cost of its client's turn."""
        line = self._lines[row.client]
        del line[row]
        self._count -= 1
        self.steps -= row.prefill_steps_left
        if not line:
            del self._lines[row.client]

    def take(self, row: Row) -> None:
        """Take out a row that waits, which uses up its client's turn."""
        self.remove(row)
        if row.client in self._lines:
            self._lines.move_to_end(row.client)

    def first_of(self, client: str) -> Row:
        """Return the head of a waiting client's line."""
        return next(iter(self._lines[client]))

    def in_turn(self) -> Iterator[Row]:
        """Iterate over all rows in the order of turns: one row of each client, in rounds.

        The queue must not change meanwhile.
        """
        lines: Iterable[Iterator[Row]] = map(iter, self._lines.values())
        while lines:
            going_on = []
            for line in lines:
                row = next(line, None)
                if row is not None:
                    yield row
                    going_on.append(line)
            lines = going_on

    def newest(self, client: str, count: int) -> list[Row]:
        """Return the last rows of a client's line that have not begun, newest first."""
        found: list[Row] = []
        for row in reversed(self._lines.get(client, Line())):
            if len(found) == count:
                break
            if not row.has_begun:
                found.append(row)
        return found

    def take_all(self) -> list[Row]:
        """Empty the queue."""
        rows = [row for line in self._lines.values() for row in line]
        self._lines.clear()
        self._count = self.steps = 0
        return rows

    def check_integrity(self) -> None:
        """Raise AssertionError unless counts and lines agree."""
        rows = [row for line in self._lines.values() for row in line]
        assert all(self._lines.values()), "a client without waiting rows is forgotten"
        assert self._count == len(rows), f"{self._count} counted, {len(rows)} wait"
        assert self.steps == sum(row.prefill_steps_left for row in rows)
        assert not any(row.is_over for row in rows), "a row that is over waits"
