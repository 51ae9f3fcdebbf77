"""Records what an engine's ticks run, while somebody watches: which rows, in which slots, how many steps.

A record holds plain numbers and refers to no row. The engine writes each into a ring of fixed length; any
thread reads the ring without a lock, and a reader that is too slow misses the oldest.
"""

from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Goal, Row

# Ticks that a ring holds. Readers come ten times a second; a tick takes 0.1 ms or more.
RING_TICKS = 1024
# The largest number of a row, which 32 bits hold; 1 comes after it.
MAX_NUMBER = 2**32 - 1

Record = TypeVar("Record")


class RowKind(Enum):
    """The purposes for which a tick runs a row."""

    PREFILL = "the prompt of a generation"
    DECODE = "a sampled token or a few are fed back"
    LAST = "a sequence whose last output alone is wanted (many to one)"
    EVERY = "a sequence whose every output is wanted (many to many)"
    SCORE = "a text whose tokens are scored"


_KINDS = {
    Goal.GENERATE: RowKind.PREFILL,
    Goal.LAST: RowKind.LAST,
    Goal.EVERY: RowKind.EVERY,
    Goal.SCORE: RowKind.SCORE,
}


class Ran(NamedTuple):
    """The time steps of a tick.

    Attributes:
        useful: valid time steps of all rows.
        padded: the others.
        steps: valid time steps of each row, integers (B,), which nobody changes; None: one each.
    """

    useful: int
    padded: int
    steps: NDArray[np.integer] | None = None


class Seats(NamedTuple):
    """The rows of a tick, in order: the slot, the number and the purpose of each."""

    slots: list[int]
    numbers: list[int]
    kinds: list[RowKind]


class TickRecord(NamedTuple):
    """A tick that ran.

    Attributes:
        kind: chunk, step or whole.
        started: monotonic seconds at the start of its turn.
        ended: monotonic seconds after its run.
        seats: its rows.
        ran: their time steps.
        waiting: rows in the queue.
    """

    kind: str
    started: float
    ended: float
    seats: Seats
    ran: Ran
    waiting: int

    @property
    def width(self) -> int:
        """Time steps that the tick computes of each row; a row's padding is what it has fewer."""
        rows = len(self.seats.slots)
        return (self.ran.useful + self.ran.padded) // rows if rows else 0

    @property
    def row_steps(self) -> list[int]:
        """Valid time steps of each row."""
        return [1] * len(self.seats.slots) if self.ran.steps is None else self.ran.steps.tolist()


class Reading(NamedTuple, Generic[Record]):
    """The result of reading a ring.

    Attributes:
        records: oldest first.
        num_lost: records since the last reading that were overwritten.
        end: position from which the next reading goes on.
    """

    records: list[Record]
    num_lost: int
    end: int


class Ring(Generic[Record]):
    """The last records of one writer. One thread adds, any thread reads; neither waits.

    Each place holds a record together with its position, so that a reader knows a place that the writer has
    overtaken.

    Args:
        size: records that it holds.

    Attributes:
        end: number of records added so far, the position of the next one.
    """

    def __init__(self, size: int = RING_TICKS) -> None:
        self._places: list[tuple[int, Record] | None] = [None] * size
        self.end = 0

    def add(self, record: Record) -> None:
        """Add a record in the place of the oldest."""
        end = self.end
        self._places[end % len(self._places)] = end, record
        self.end = end + 1  # last: a reader that sees this number finds the record

    def read(self, start: int) -> Reading[Record]:
        """Return the records from a position on, up to those that are there when it begins."""
        end, size = self.end, len(self._places)
        found = []
        for position in range(max(start, end - size), end):
            place = self._places[position % size]
            if place is not None and place[0] == position:
                found.append(place[1])
        return Reading(found, end - start - len(found), end)


@dataclass(slots=True)
class _Seat:
    """A row's number, and its slot while it holds one."""

    number: int
    slot: int | None = None


class TickRecorder:
    """Numbers the rows of one engine and records its ticks. All but `ring` belongs to the engine.

    The pools move rows about, so a row's slot is kept here: the lowest that is free when a tick first runs
    it, until it gives its slot up. Its number stays the same when it is suspended and admitted again.

    Attributes:
        ring: the ticks.
    """

    def __init__(self) -> None:
        self.ring: Ring[TickRecord] = Ring()
        self._seats: dict[Row, _Seat] = {}
        self._free: list[int] = []
        self._num_slots = self._number = 0
        self._last: dict[str, tuple[list[Row], Seats]] = {}  # by kind of tick: mostly the same rows again
        self._begun: tuple[str, Seats] = ("", Seats([], [], []))

    def begin(self, kind: str, rows: list[Row], *, is_decode: bool = False) -> None:
        """Note the rows of a tick that is about to run.

        Args:
            kind: kind of the tick.
            rows: its rows in order.
            is_decode: it feeds sampled tokens back.
        """
        self.forget_rows()
        known = self._last.get(kind)
        if known is None or known[0] != rows:
            known = self._last[kind] = list(rows), self._seats_of(rows, is_decode)
        self._begun = kind, known[1]

    def end(self, started: float, ended: float, ran: Ran, waiting: int) -> None:
        """Record the tick that `begin` has announced; one that failed is not recorded."""
        kind, seats = self._begun
        self.ring.add(TickRecord(kind, started, ended, seats, ran, waiting))

    def forget_rows(self) -> None:
        """Free the slots of rows that hold none any more, and forget rows that are over."""
        left = [
            (row, seat)
            for row, seat in self._seats.items()
            if row.is_over or (row.suspended is not None and seat.slot is not None)
        ]
        for row, seat in left:
            if seat.slot is not None:
                heappush(self._free, seat.slot)
                seat.slot = None
            if row.is_over:
                del self._seats[row]
        if left:
            self._last.clear()

    def _seats_of(self, rows: list[Row], is_decode: bool) -> Seats:
        slots, numbers = [], []
        for row in rows:
            seat = self._seats.get(row)
            if seat is None:
                self._number = self._number % MAX_NUMBER + 1
                seat = self._seats[row] = _Seat(self._number)
            if seat.slot is None:
                seat.slot = self._take_slot()
            slots.append(seat.slot)
            numbers.append(seat.number)
        kinds = [RowKind.DECODE] * len(rows) if is_decode else [_KINDS[row.request.goal] for row in rows]
        return Seats(slots, numbers, kinds)

    def _take_slot(self) -> int:
        if self._free:
            return heappop(self._free)
        self._num_slots += 1
        return self._num_slots - 1
