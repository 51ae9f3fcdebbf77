"""The next time steps of prefilling rows, a window of each row's inputs, side by side in one array."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_WINDOW_VALUES = 1024


class PrefillBuffer:
    """Windows of many rows in one array, so that a tick takes the steps of all rows in one operation.

    Its size is fixed: a long row's window is loaded anew each time that it has been run, so neither a join
    nor a tick copies more than a window of any row. What lies past a row's inputs is another row's, or old:
    valid input, which the recurrence never reads, since `lengths` says where a row ends.

    Args:
        features: values a time step; None: token ids.
        rows: windows that it holds.
        chunk: steps that are taken from a window at a time, at most.

    Attributes:
        window: steps of a window, more than `chunk`.
    """

    def __init__(self, features: int | None, rows: int, chunk: int) -> None:
        self.window = max(chunk + 1, _WINDOW_VALUES // (features or 1))
        # One more than the window, so that a position says which window it is in when all of it has been run.
        self._stride = self.window + 1
        shape, dtype = ((), np.int64) if features is None else ((features,), np.float32)
        self._steps: NDArray[Any] = np.zeros((rows * self._stride, *shape), dtype)
        self._free = list(range(rows))[::-1]

    def add(self, inputs: NDArray[Any]) -> int:
        """Load the first of a row's inputs, integers (T,) or float32 (T, F), into a free window.

        Returns:
            The position of the first.

        Raises:
            ValueError: the inputs do not fit into the array; no window is taken then.
        """
        start = self.load(self._free[-1] * self._stride, inputs)
        self._free.pop()
        return start

    def load(self, position: int, inputs: NDArray[Any]) -> int:
        """Load the first of a row's inputs into the window that a position is in; return the first's."""
        start = position - position % self._stride
        loaded = inputs[: self.window]
        self._steps[start : start + len(loaded)] = loaded
        return start

    def release(self, position: int) -> None:
        """Free the window that a position is in."""
        self._free.append(position // self._stride)

    def take(self, positions: NDArray[np.int64], into: NDArray[Any] | None = None) -> NDArray[Any]:
        """Copy the steps at the given positions; a position past the end gives the array's last step.

        Args:
            positions: int64, any shape.
            into: array of that shape (and F) to write to; None: a new one.
        """
        return self._steps.take(positions, axis=0, out=into, mode="clip")
