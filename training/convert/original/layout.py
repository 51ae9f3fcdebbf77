"""Finds which axes of a foreign graph's data and output are batch, time and width, by running it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.convert.foreign import Array, Refused


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes to run a graph with, in order to see which axes follow them; batches and steps differ.

    Attributes:
        batches: two numbers of rows.
        steps: two numbers of time steps; the same one twice where the graph takes no other.
    """

    batches: tuple[int, int] = (3, 2)
    steps: tuple[int, int] = (5, 11)

    @property
    def is_fixed(self) -> bool:
        """The graph takes one number of time steps alone."""
        return self.steps[0] == self.steps[1]

    @property
    def probes(self) -> tuple[tuple[int, int], ...]:
        """Rows and time steps of three runs: the second differs in steps, the third in rows."""
        (rows, fewer), (steps, more) = self.batches, self.steps
        return (rows, steps), (rows, more), (fewer, steps)

    @classmethod
    def of(cls, steps: int | None) -> "Sizes":
        """Return the sizes for a graph of any number of time steps, or of one alone."""
        if steps is None:
            return cls()
        return cls((3, 2) if steps > 3 else (5, 4), (steps, steps))


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


def output_axes(run: Callable[[int, int], Array], sizes: Sizes) -> OutputAxes:
    """Find the axes of an output.

    Args:
        run: runs the graph on a batch of so many rows and so many time steps.
        sizes: batches and time steps to run it with.

    Raises:
        Refused: no axis follows the batch, or two axes follow the time steps.
    """
    shapes = [run(batch, steps).shape for batch, steps in sizes.probes]
    if len({len(shape) for shape in shapes}) != 1:
        raise Refused("the rank of the output changes with the input")
    axes = range(len(shapes[0]))
    batch = [axis for axis in axes if shapes[0][axis] != shapes[2][axis]]
    if len(batch) != 1:
        raise Refused(
            f"expected one axis of the output to be the batch, found shape {shapes[0]} for "
            f"{sizes.batches[0]} rows and {shapes[2]} for {sizes.batches[1]}"
        )
    time = _time_axes(shapes, batch[0], sizes)
    steps = sizes.steps[0]
    if len(time) > 1 or time == batch:
        raise Refused(
            f"expected one axis of the output to be time, found shape {shapes[0]} for {steps} steps"
        )
    if time and shapes[0][time[0]] != steps:
        raise Refused(
            f"expected a row of outputs for each time step or for the last, found {shapes[0][time[0]]} for "
            f"{steps} steps",
            "networks that change the number of steps are not served",
        )
    return OutputAxes(len(shapes[0]), batch[0], time[0] if time else None)


def _time_axes(shapes: Sequence[tuple[int, ...]], batch: int, sizes: Sizes) -> list[int]:
    """Return the axes that follow the time steps, or, where these are fixed, the first of their size."""
    if not sizes.is_fixed:
        return [
            axis for axis, pair in enumerate(zip(shapes[0], shapes[1], strict=True)) if pair[0] != pair[1]
        ]
    others = [axis for axis in range(len(shapes[0])) if axis != batch]
    is_time = len(others) > 1 and shapes[0][others[0]] == sizes.steps[0]
    return others[:1] if is_time else []
