"""Measures step ticks of several steps against single ones, with the engine's own ticks."""

import time
from collections.abc import Callable

from service.engine.cell import Cell, Decoding, Generator, Shape, StepSize
from service.engine.decode import Decode, start_decoding
from service.models.step_costs import StepCost
from service.models.tuning import rows_of, shortest_seconds

# Rows of a tick that are measured, and the slots; what holds for a number holds for fewer rows.
_ROWS = (1, 4, 16, 64)
_STEPS = 4
# Of steps that take longer than this few fit into a tick, and bring little: more rows are not measured.
_MAX_STEP_S = 0.004
# The smallest gain for which ticks get longer.
_GAIN = 1.02
_TOKENS = 1 << 20


def measure_steps(
    cell: Cell,
    generator: Generator,
    shape: Shape,
    slots: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[StepCost, ...]:
    """Measure the numbers of rows up to the slots, and warm the graph up for them.

    Args:
        cell: runs single steps.
        generator: runs several.
        shape: widths of their tensors.
        slots: rows active side by side.
        clock: returns seconds.

    Raises:
        ModelFailure: a graph fails on rows of zeros.
    """
    costs: list[StepCost] = []
    for rows in [*(one for one in _ROWS if one < slots), slots]:
        single = _seconds(Decode(cell, shape, rows), shape, rows, clock)
        decoding = Decoding((), generator, (StepSize(rows, _STEPS),))
        seconds = _seconds(Decode(cell, shape, rows, decoding=decoding), shape, rows, clock)
        costs.append(StepCost(rows, seconds if seconds * _GAIN < single else 0.0))
        if single > _MAX_STEP_S:
            break
    return tuple(costs)


def _seconds(decode: Decode, shape: Shape, rows: int, clock: Callable[[], float]) -> float:
    """Return the shortest time of a step in a few ticks of so many rows."""
    for row in rows_of(shape, rows, _TOKENS):
        decode.join(row, start_decoding(row, None))
    made: list[int] = []
    seconds = shortest_seconds(lambda: made.append(decode.run().tokens), clock)
    return seconds * rows / min(made)  # a tick whose draws are not clear has one step
