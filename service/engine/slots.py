"""Arrays of recurrent state: rows join, leave and move here and only here.

A pool keeps its n rows at the front of arrays of fixed size, so that the first n are one contiguous block
that the runtime binds without a copy. Every state array exists twice: a tick reads `front` and writes `back`,
then they change places. All rows of a pool run in each of its ticks; a row that must not run is taken out of
the pool.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.request import Row, StateRow


class Held:
    """The rows that clients hold places with, and the prefill steps of these rows when they were submitted.

    The engine alone changes it; any thread may read one client's numbers, which may be a row apart.

    Attributes:
        rows: number of rows by client.
    """

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._steps: dict[str, int] = {}

    def of(self, client: str) -> tuple[int, int]:
        """Return a client's rows and steps."""
        return self.rows.get(client, 0), self._steps.get(client, 0)

    def add(self, row: Row) -> None:
        """Count a row."""
        rows, steps = self.of(row.client)
        self.rows[row.client], self._steps[row.client] = rows + 1, steps + row.prefill_steps

    def remove(self, row: Row) -> None:
        """Count a row no more; a client without rows is forgotten."""
        rows, steps = self.of(row.client)
        if rows > 1:
            self.rows[row.client], self._steps[row.client] = rows - 1, steps - row.prefill_steps
        else:
            del self.rows[row.client], self._steps[row.client]


class Pool:
    """Up to `capacity` rows with their state and a few columns of further values.

    Args:
        capacity: rows that it holds at most.
        shape: widths of the state tensors, and their values at the start of a sequence.
        columns: dtype by name, of one value a row (a dtype with a shape: of as many).
    """

    def __init__(self, capacity: int, shape: Shape, columns: Mapping[str, Any]) -> None:
        self.capacity = capacity
        self._start = shape.start or (0.0,) * len(shape.state)
        self.rows: list[Row] = []
        self.columns: dict[str, NDArray[Any]] = {}
        for name, kind in columns.items():
            base, inner = kind if isinstance(kind, tuple) else (kind, ())
            self.columns[name] = np.zeros((capacity, *inner), base)
        self._sides = tuple(
            tuple(np.zeros((capacity, width), np.float32) for width in shape.state) for _ in range(2)
        )
        self._index_of: dict[Row, int] = {}
        self.parity = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, row: Row) -> bool:
        return row in self._index_of

    @property
    def front(self) -> StateRow:
        """State before the next tick, float32 (capacity, H) a tensor; the first len(self) rows are in use."""
        return self._sides[self.parity]

    @property
    def back(self) -> StateRow:
        """Arrays that the next tick writes the state after it to."""
        return self._sides[1 - self.parity]

    def flip(self) -> None:
        """Make `back` the state, once a tick has written it."""
        self.parity = 1 - self.parity

    def join(self, row: Row, state: StateRow | None, values: Mapping[str, Any]) -> None:
        """Add a row at the end; it is in the pool only if all of its values fit.

        Args:
            row: whose place it is.
            state: float32 (H,) a tensor; None: the start of a sequence.
            values: one of every column.
        """
        index = len(self.rows)
        assert index < self.capacity, "no free row: the scheduler admitted too many"
        for tensor, value in zip(self.front, self._start if state is None else state, strict=True):
            tensor[index] = value
        for name, column in self.columns.items():
            column[index] = values[name]
        self.rows.append(row)
        self._index_of[row] = index

    def leave(self, row: Row) -> None:
        """Remove a row; the last one takes its place."""
        index = self._index_of.pop(row)
        last = self.rows.pop()
        if last is not row:
            end = len(self.rows)
            self.rows[index] = last
            self._index_of[last] = index
            for array in (*self.front, *self.columns.values()):
                array[index] = array[end]

    def index_of(self, row: Row) -> int:
        """Return a row's index in the arrays, good until the next `leave`."""
        return self._index_of[row]

    def state_of(self, row: Row) -> StateRow:
        """Copy a row's state."""
        index = self._index_of[row]
        return tuple(tensor[index].copy() for tensor in self.front)

    def values_of(self, row: Row) -> dict[str, Any]:
        """Copy a row's columns."""
        index = self._index_of[row]
        return {name: column[index].copy() for name, column in self.columns.items()}

    def check_integrity(self) -> None:
        """Raise AssertionError unless rows and indexes agree."""
        assert len(self._index_of) == len(self.rows) <= self.capacity
        assert all(self.rows[index] is row for row, index in self._index_of.items())
