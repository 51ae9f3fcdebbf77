"""Rows of recurrent state: joining, leaving and moving happen here and only here.

A pool keeps its n rows at the front of arrays of fixed size, so that the first n are one contiguous block
that the runtime binds without a copy. Every state array exists twice: a tick reads `front` and writes `back`,
then they change places. All rows of a pool run in each of its ticks; rows that must not are taken out of the
pool.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.sequence import Sequence, StateRow


class Pool:
    """Up to `capacity` rows: their sequences, their state, and a few columns of what else is known of them.

    Args:
        capacity: most rows.
        widths: of each state tensor.
        columns: dtype by name, of one value a row (a dtype with a shape: of as many).
    """

    def __init__(self, capacity: int, widths: Rows[int], columns: Mapping[str, Any]) -> None:
        self.capacity = capacity
        self.sequences: list[Sequence] = []
        self.columns: dict[str, NDArray[Any]] = {}
        for name, kind in columns.items():
            base, shape = kind if isinstance(kind, tuple) else (kind, ())
            self.columns[name] = np.zeros((capacity, *shape), base)
        self._sides = tuple(
            tuple(np.zeros((capacity, width), np.float32) for width in widths) for _ in range(2)
        )
        self._row_of: dict[Sequence, int] = {}
        self.parity = 0

    def __len__(self) -> int:
        return len(self.sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._row_of

    @property
    def front(self) -> StateRow:
        """State before the next tick: one float32 (capacity, H) a tensor, of which the first len(self) rows
        count.
        """
        return self._sides[self.parity]

    @property
    def back(self) -> StateRow:
        """Where the next tick writes the state after it."""
        return self._sides[1 - self.parity]

    def flip(self) -> None:
        """The tick has written `back`: it is the state now."""
        self.parity = 1 - self.parity

    def join(self, sequence: Sequence, state: StateRow | None, values: Mapping[str, Any]) -> int:
        """Add a row at the end.

        Args:
            sequence: whose row it is.
            state: float32 (H,) a tensor; None: zeros, the start of a sequence.
            values: of every column.

        Returns:
            Its row number, good until the next `leave`.
        """
        row = len(self.sequences)
        assert row < self.capacity, "no free row: the scheduler admitted too many"
        self.sequences.append(sequence)
        self._row_of[sequence] = row
        for index, tensor in enumerate(self.front):
            tensor[row] = 0.0 if state is None else state[index]
        for name, column in self.columns.items():
            column[row] = values[name]
        return row

    def leave(self, sequence: Sequence) -> None:
        """Remove a row; the last one takes its place."""
        row = self._row_of.pop(sequence)
        last = self.sequences.pop()
        if last is not sequence:
            end = len(self.sequences)
            self.sequences[row] = last
            self._row_of[last] = row
            for array in (*self.front, *self.columns.values()):
                array[row] = array[end]

    def row_of(self, sequence: Sequence) -> int:
        """Its row number, good until the next `leave`."""
        return self._row_of[sequence]

    def state_of(self, sequence: Sequence) -> StateRow:
        """A copy of a row's state."""
        row = self._row_of[sequence]
        return tuple(tensor[row].copy() for tensor in self.front)

    def values_of(self, sequence: Sequence) -> dict[str, Any]:
        """A copy of a row's columns."""
        row = self._row_of[sequence]
        return {name: column[row].copy() for name, column in self.columns.items()}

    def check_integrity(self) -> None:
        """Raise AssertionError unless rows and sequences agree."""
        assert len(self._row_of) == len(self.sequences) <= self.capacity
        assert all(self.sequences[row] is sequence for sequence, row in self._row_of.items())
