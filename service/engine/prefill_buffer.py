"""The time steps that prefilling rows have yet to run, back to back in one array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_CAPACITY = 1024


class PrefillBuffer:
    """Inputs of many rows in one array, so that a tick takes those of all rows in one operation.

    What lies past a row's inputs is another row's, or old: valid input, which the recurrence never reads,
    since `lengths` says where a row ends.

    Args:
        features: values a time step; None: token ids.
    """

    def __init__(self, features: int | None) -> None:
        self._steps = self._empty(_MIN_CAPACITY, features)
        self._features = features
        self._end = 0

    def _empty(self, capacity: int, features: int | None) -> NDArray[Any]:
        return (
            np.zeros(capacity, np.int64) if features is None else np.zeros((capacity, features), np.float32)
        )

    def has_capacity(self, steps: int) -> bool:
        """Return whether so many steps can be added without `compact`."""
        return self._end + steps <= len(self._steps)

    def add(self, inputs: NDArray[Any]) -> int:
        """Append a row's inputs, int64 (T,) or float32 (T, F), and return the position of the first.

        There must be capacity.
        """
        start = self._end
        self._steps[start : start + len(inputs)] = inputs
        self._end += len(inputs)
        return start

    def compact(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], capacity: int
    ) -> NDArray[np.int64]:
        """Keep the given spans alone and make room for `capacity` more steps.

        The array is then at least twice what is kept, so each step is copied a bounded number of times in
        all.

        Args:
            starts: int64 (B,), positions of the spans to keep.
            lengths: int64 (B,), their steps.
            capacity: steps to be added next.

        Returns:
            int64 (B,), the positions of the spans now.
        """
        kept = int(lengths.sum())
        steps = self._empty(max(_MIN_CAPACITY, 2 * (kept + capacity)), self._features)
        moved = np.cumsum(lengths) - lengths
        for start, length, to in zip(starts.tolist(), lengths.tolist(), moved.tolist(), strict=True):
            steps[to : to + length] = self._steps[start : start + length]
        self._steps, self._end = steps, kept
        return moved

    def take(self, positions: NDArray[np.int64], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copy the steps at the given positions; a position past the end gives the array's last step.

        Args:
            positions: int64, any shape.
            into: array of that shape (and F) to write to; None: a new one.
        """
        return self._steps.take(positions, axis=0, out=into, mode="clip")
