"""Finds which axes of a foreign graph's data and output are batch, time and width, by running it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Array, Refused

# Sizes that no width of a layer is likely to have, and that differ from each other.
_BATCH = 3
_STEPS = (5, 11)


@dataclass(frozen=True, slots=True)
class OutputAxes:
    """Axes of an output; all others together are its width.

    Attributes:
        rank: number of axes.
        batch: axis of the rows of the batch.
        time: axis of the time steps; None: there is one row of outputs a sequence.
    """

    rank: int
    batch: int
    time: int | None

    @property
    def order(self) -> tuple[int, ...]:
        """The axes with batch first, then time, then the others."""
        first = (self.batch,) if self.time is None else (self.batch, self.time)
        return first + tuple(axis for axis in range(self.rank) if axis not in first)

    def rows(self, output: Array) -> NDArray[np.float32]:
        """Return an output as float32 (batch, outputs) or (batch, time, outputs)."""
        moved = np.transpose(output, self.order)
        kept = moved.shape[: 1 if self.time is None else 2]
        return np.asarray(moved.reshape(*kept, -1), np.float32)


def output_axes(run: Callable[[int, int], Array]) -> OutputAxes:
    """Find the axes of an output.

    Args:
        run: runs the graph on a batch of so many rows and so many time steps.

    Raises:
        Refused: no axis follows the batch, or two axes follow the time steps.
    """
    shapes = [
        run(batch, steps).shape for batch, steps in ((_BATCH, _STEPS[0]), (_BATCH, _STEPS[1]), (2, _STEPS[0]))
    ]
    if len({len(shape) for shape in shapes}) != 1:
        raise Refused("the rank of the output changes with the input")
    axes = range(len(shapes[0]))
    time = [axis for axis in axes if shapes[0][axis] != shapes[1][axis]]
    batch = [axis for axis in axes if shapes[0][axis] != shapes[2][axis]]
    if len(batch) != 1:
        raise Refused(
            f"expected one axis of the output to be the batch, found shape {shapes[0]} for {_BATCH} rows "
            f"and {shapes[2]} for 2"
        )
    if len(time) > 1 or time == batch:
        raise Refused(
            f"expected one axis of the output to be time, found shape {shapes[0]} for {_STEPS[0]} steps"
        )
    if time and shapes[0][time[0]] != _STEPS[0]:
        raise Refused(
            f"expected a row of outputs for each time step or for the last, found {shapes[0][time[0]]} for "
            f"{_STEPS[0]} steps",
            "networks that change the number of steps are not served",
        )
    return OutputAxes(len(shapes[0]), batch[0], time[0] if time else None)
