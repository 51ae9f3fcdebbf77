"""Rows of recurrent state: joining, leaving and moving happen here and only here.

A pool keeps its n rows at the front of arrays of fixed size, so that the first n are one contiguous block that the runtime binds without a copy.
Every state array exists twice: a tick reads `front` and writes `back`, then they change places. All rows of a pool run in each of its ticks; rows
that must not are taken out of the pool.
"""

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import key_of
from service.engine.sequence import ParkedRow, Sequence

StateRow = tuple[NDArray[np.float32], ...]

# What the vectorised sampler needs to know of a generating row, in one record that moves with it.
RECORD = np.dtype(
    [
        ("token", np.int64),  # fed in the next step
        ("temperature", np.float64),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("key", np.uint64),
        ("position", np.uint64),  # tokens of the sequence before the one sampled next
        ("remaining", np.int64),  # tokens still to generate
        ("wants_logprobs", np.bool_),
    ]
)


class Pool:
    """Up to `capacity` rows: their sequences, their state, and a record each.

    Args:
        capacity: most rows.
        widths: of each state tensor.
    """

    def __init__(self, capacity: int, widths: Rows[int]) -> None:
        self.capacity = capacity
        self.sequences: list[Sequence] = []
        self.records: NDArray[np.void] = np.zeros(capacity, RECORD)
        self._sides = tuple(tuple(np.zeros((capacity, width), np.float32) for width in widths) for _ in range(2))
        self._row_of: dict[Sequence, int] = {}
        self.parity = 0

    def __len__(self) -> int:
        return len(self.sequences)

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._row_of

    @property
    def front(self) -> StateRow:
        """State before the next tick: one float32 (capacity, H) a tensor, of which the first len(self) rows count."""
        return self._sides[self.parity]

    @property
    def back(self) -> StateRow:
        """Where the next tick writes the state after it."""
        return self._sides[1 - self.parity]

    def flip(self) -> None:
        """The tick has written `back`: it is the state now."""
        self.parity = 1 - self.parity

    def join(self, sequence: Sequence, state: StateRow | None = None, record: NDArray[np.void] | None = None) -> int:
        """Add a row at the end.

        Args:
            sequence: whose row it is.
            state: float32 (H,) a tensor; None: zeros, the start of a sequence.
            record: a RECORD; None: zeros.
        Returns:
            Its row number, good until the next `leave`.
        """
        row = len(self.sequences)
        assert row < self.capacity, "no free row: the scheduler admitted too many"
        self.sequences.append(sequence)
        self._row_of[sequence] = row
        for index, tensor in enumerate(self.front):
            tensor[row] = 0.0 if state is None else state[index]
        self.records[row] = np.zeros((), RECORD) if record is None else record
        return row

    def leave(self, sequence: Sequence) -> None:
        """Remove a row; the last one takes its place."""
        row = self._row_of.pop(sequence)
        last = self.sequences.pop()
        if last is not sequence:
            end = len(self.sequences)
            self.sequences[row] = last
            self._row_of[last] = row
            self.records[row] = self.records[end]
            for tensor in self.front:
                tensor[row] = tensor[end]

    def state_of(self, sequence: Sequence) -> StateRow:
        """A copy of a row's state."""
        row = self._row_of[sequence]
        return tuple(tensor[row].copy() for tensor in self.front)

    def park(self, sequence: Sequence) -> ParkedRow:
        """Take a row out, to join again later with what is returned."""
        parked = ParkedRow(self.state_of(sequence), self.records[self._row_of[sequence]].copy())
        self.leave(sequence)
        return parked

    def check_integrity(self) -> None:
        """Raise AssertionError unless rows and sequences agree."""
        assert len(self._row_of) == len(self.sequences) <= self.capacity
        assert all(self.sequences[row] is sequence for sequence, row in self._row_of.items())


def generation_record(sequence: Sequence) -> Any:
    """The record of a sequence about to generate its first token: its last input step is fed next."""
    sampling = sequence.sampling
    record = np.zeros((), RECORD)
    record["token"] = sequence.inputs[-1]
    record["temperature"] = sampling.temperature
    record["top_k"] = sampling.top_k
    record["top_p"] = sampling.top_p
    record["key"] = key_of(sampling.seed)
    record["position"] = len(sequence.inputs)
    record["remaining"] = sequence.max_tokens
    record["wants_logprobs"] = sequence.wants_logprobs
    return record
