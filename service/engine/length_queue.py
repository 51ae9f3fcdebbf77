"""Rows that wait to be run whole: fair turns, and each client's rows in the order of their lengths. Pure."""

from bisect import bisect_left, insort
from collections import OrderedDict
from itertools import count, islice
from typing import NamedTuple

from service.engine.queue import FairQueue, Line
from service.engine.request import Row


class Entry(NamedTuple):
    """A waiting row; entries are in the order of lengths, those of one length in the order of arrival."""

    length: int
    number: int
    row: Row


class LengthQueue(FairQueue):
    """Waiting rows by client, with two orders of clients and one of rows.

    The clients' turns say whose first row begins the next batch. Their places say who is asked first for rows
    beside it, so that a row that happens to fit does not cost its client the turn of a row that waits longer.
    Adding and taking a row takes logarithmic time, but for moving a client's later entries in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._by_length: OrderedDict[str, list[Entry]] = OrderedDict()  # the first one's place is next
        self._numbers: dict[Row, int] = {}
        self._next_number = count()
        self._last_client: str | None = None  # the one whose turn the last batch was

    def _line_of(self, row: Row) -> Line:
        line = super()._line_of(row)
        number = self._numbers[row] = next(self._next_number)
        insort(self._by_length.setdefault(row.client, []), Entry(len(row.request.inputs), number, row))
        return line

    def remove(self, row: Row) -> None:
        """Take out a row that waits, at no cost of its client's turn and place."""
        super().remove(row)
        entries = self._by_length[row.client]
        del entries[bisect_left(entries, (len(row.request.inputs), self._numbers.pop(row)))]
        if not entries:
            del self._by_length[row.client]

    def take_batch(self, rows: list[Row]) -> None:
        """Take out rows that run together: the first uses up its client's turn, each its client's place."""
        self.take(rows[0])
        self._last_client = rows[0].client
        for row in rows[1:]:
            self.remove(row)
        for client in dict.fromkeys(row.client for row in (*rows[1:], rows[0])):
            if client in self._by_length:
                self._by_length.move_to_end(client)

    def end_turn(self) -> None:
        """Put the client whose turn the last batch was behind those that have come while it ran.

        A run may take seconds: who comes meanwhile waits for its end, and not for another one of that client.
        """
        if self._last_client is not None and self._last_client in self._lines:
            self._lines.move_to_end(self._last_client)
        self._last_client = None

    def next_row(self) -> Row:
        """Return the row that has waited longest, of the client whose turn it is."""
        return self.first_of(next(iter(self.clients)))

    def in_place(self, max_clients: int) -> list[tuple[str, list[Entry]]]:
        """Return the clients whose places are next, each with its rows in the order of lengths."""
        return list(islice(self._by_length.items(), max_clients))

    def of_client(self, client: str) -> list[Entry]:
        """Return a waiting client's rows in the order of lengths; the queue changes the list later."""
        return self._by_length[client]

    def take_all(self) -> list[Row]:
        """Empty the queue."""
        self._by_length.clear()
        self._numbers.clear()
        self._last_client = None
        return super().take_all()

    def check_integrity(self) -> None:
        """Raise AssertionError unless the orders hold the same rows."""
        super().check_integrity()
        assert self._by_length.keys() == self.clients
        assert len(self._numbers) == len(self)
        for client, entries in self._by_length.items():
            assert entries == sorted(entries), f"the rows of {client} are out of order"
            assert {entry.row for entry in entries} == set(self._lines[client])
