"""The arrays of a batch of whole sequences: inputs side by side, and the outputs of each row."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.request import Goal, Row
from service.errors import ModelFailure


class Gathered(NamedTuple):
    """Rows whose inputs lie side by side.

    Attributes:
        rows: B rows.
        inputs: int64 (B, T) or float32 (B, T, F); zeros behind each row's length.
        lengths: int32 (B,).
        useful: time steps of the rows.
        padded: time steps behind their ends.
        failed: rows whose inputs do not fit, with the error; they are none of the B.
    """

    rows: list[Row]
    inputs: NDArray[Any]
    lengths: NDArray[np.int32]
    useful: int
    padded: int
    failed: dict[Row, Exception]


def gather(rows: list[Row], shape: Shape) -> Gathered:
    """Copy the inputs of rows into one array; one whose inputs do not fit is left out."""
    lengths = [len(row.request.inputs) for row in rows]
    steps, useful = max(lengths, default=0), sum(lengths)
    inputs = _empty(len(rows), steps, shape.features)
    failed: dict[Row, Exception] = {}
    for index, row in enumerate(rows):
        try:
            _check(row)
            inputs[index, : lengths[index]] = row.request.inputs
            inputs[index, lengths[index] :] = 0
        except Exception as error:
            failed[row] = error
    if failed:
        others = gather([row for row in rows if row not in failed], shape)
        return others._replace(failed=failed | others.failed)
    return Gathered(rows, inputs, np.array(lengths, np.int32), useful, len(rows) * steps - useful, failed)


def _empty(rows: int, steps: int, features: int | None) -> NDArray[Any]:
    """Return an array whose values are still to be written: zeros would be written twice."""
    if features is None:
        return np.empty((rows, steps), np.int64)
    return np.empty((rows, steps, features), np.float32)


def _check(row: Row) -> None:
    """Raise ValueError for a request that no whole network can serve."""
    request = row.request
    if request.goal not in (Goal.LAST, Goal.EVERY) or request.state is not None or request.keeps_state:
        raise ValueError(
            f"a whole network runs LAST and EVERY without state, found {request.goal.name}, "
            f"{'with' if request.state is not None or request.keeps_state else 'without'} state"
        )


def check_output(output: NDArray[np.float32], batch: Gathered, shape: Shape) -> None:
    """Raise ModelFailure unless a batch's output has a row, or a row a time step, for each of its rows.

    The shape of what a graph gives may depend on the values that it gets, so that admission does not show it.
    """
    rows, steps = batch.inputs.shape[:2]
    if output.shape not in ((rows, shape.outputs), (rows, steps, shape.outputs)):
        raise ModelFailure(
            f"the network must give {rows} x {shape.outputs} or {rows} x {steps} x {shape.outputs} numbers "
            f"for {rows} sequences of up to {steps} time steps, found {' x '.join(map(str, output.shape))}"
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
