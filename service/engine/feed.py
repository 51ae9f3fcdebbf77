"""The time steps that prefilling rows have yet to run, back to back in one array, so that a tick takes those
of all rows in one operation.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEAST_CAPACITY = 1024


class Feed:
    """Inputs of many rows in one array; rows know where theirs start.

    What is past a row's inputs is another row's, or old: valid input, which the recurrence never reads since
    `lengths` says where a row ends.

    Args:
        features: values a time step; None: token ids.
    """

    def __init__(self, features: int | None) -> None:
        self._steps = self._empty(_LEAST_CAPACITY, features)
        self._features = features
        self._end = 0

    def _empty(self, capacity: int, features: int | None) -> NDArray[Any]:
        return (
            np.zeros(capacity, np.int64) if features is None else np.zeros((capacity, features), np.float32)
        )

    def has_room(self, steps: int) -> bool:
        """Whether so many steps can be added before `compact` has to make room."""
        return self._end + steps <= len(self._steps)

    def add(self, inputs: NDArray[Any]) -> int:
        """Append a row's inputs, int64 (T,) or float32 (T, F), for which there must be room. Returns where
        they start.
        """
        start = self._end
        self._end += len(inputs)
        self._steps[start : self._end] = inputs
        return start

    def compact(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
        """Keep the given spans alone and make room for `room` more steps.

        The array is at least twice what is kept then, so each step is copied a bounded number of times in
        all.

        Args:
            starts, lengths: int64 (B,), of the spans to keep.
            room: steps to be added next.

        Returns:
            int64 (B,), where the spans start now.
        """
        kept = int(lengths.sum())
        steps = self._empty(max(_LEAST_CAPACITY, 2 * (kept + room)), self._features)
        moved = np.cumsum(lengths) - lengths
        for start, length, to in zip(starts.tolist(), lengths.tolist(), moved.tolist(), strict=True):
            steps[to : to + length] = self._steps[start : start + length]
        self._steps, self._end = steps, kept
        return moved

    def take(self, positions: NDArray[np.int64], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """The steps at the given positions; those past the end are the array's last.

        Args:
            positions: int64, any shape.
            into: where they are written, of that shape (and F); None: a new array.
        """
        return self._steps.take(positions, axis=0, out=into, mode="clip")
