"""The arrays of a batch of whole sequences: inputs side by side, and the outputs of each row."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.request import Goal, Row


class Gathered(NamedTuple):
    """Rows whose inputs lie side by side.

    Attributes:
        rows: B rows.
        inputs: int64 (B, T) or float32 (B, T, F); zeros behind each row's length.
        lengths: int32 (B,).
        failed: rows whose inputs do not fit, with the error; they are none of the B.
    """

    rows: list[Row]
    inputs: NDArray[Any]
    lengths: NDArray[np.int32]
    failed: dict[Row, Exception]

    @property
    def useful(self) -> int:
        """Time steps of the rows."""
        return int(self.lengths.sum())

    @property
    def computed(self) -> int:
        """Time steps with the padding."""
        return int(self.inputs.shape[0] * self.inputs.shape[1])


def gather(rows: list[Row], shape: Shape) -> Gathered:
    """Copy the inputs of rows into one array; one whose inputs do not fit is left out."""
    lengths = [len(row.request.inputs) for row in rows]
    steps = max(lengths, default=0)
    flat = shape.inputs(len(rows) * steps)
    inputs = flat.reshape(len(rows), steps, *flat.shape[1:])
    failed: dict[Row, Exception] = {}
    for index, row in enumerate(rows):
        try:
            _check(row)
            inputs[index, : lengths[index]] = row.request.inputs
        except Exception as error:
            failed[row] = error
    if failed:
        others = gather([row for row in rows if row not in failed], shape)
        return others._replace(failed=failed | others.failed)
    return Gathered(rows, inputs, np.array(lengths, np.int32), failed)


def _check(row: Row) -> None:
    """Raise ValueError for a request that no whole network can serve."""
    request = row.request
    if request.goal not in (Goal.LAST, Goal.EVERY) or request.state is not None or request.keeps_state:
        raise ValueError(
            f"a whole network runs LAST and EVERY without state, found {request.goal.name}, "
            f"{'with' if request.state is not None or request.keeps_state else 'without'} state"
        )


def answer_of(row: Row, output: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Copy the answer of a row out of a batch's output.

    Args:
        row: LAST, or EVERY of a network with an output a time step.
        output: float32 (B, outputs) or (B, T, outputs).
        index: the row's.

    Returns:
        LAST: float32 (outputs,), the pooled output or that of the last step. EVERY: float32 (T, outputs).

    Raises:
        ValueError: every step's output is asked of a network with one output a sequence.
    """
    is_pooled, is_every = output.ndim == 2, row.request.goal is Goal.EVERY
    if is_pooled and is_every:
        raise ValueError("expected a network with an output a time step, found one with one a sequence")
    length = len(row.request.inputs)
    found = output[index] if is_pooled else output[index, :length] if is_every else output[index, length - 1]
    return found.copy()
