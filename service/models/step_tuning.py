"""Measures step ticks of several steps against single ones, with the engine's own ticks."""

import math
import time
from collections.abc import Callable
from functools import partial

from service.engine.cell import PLAIN, Cell, Decoding, Generator, Shape, StepSize
from service.engine.decode import Decode, start_decoding
from service.engine.sampling import Sampling
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
# One row with it: single steps sort the logits of this row, and the graph those of all rows.
_TOP_P = 0.87


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
        decoding = Decoding((), generator, (StepSize(rows, _STEPS, _STEPS),))

        def seconds_of(top_p: float, steps: int, rows: int = rows, decoding: Decoding = decoding) -> float:
            decode = Decode(cell, shape, rows, decoding=decoding if steps > 1 else PLAIN)
            return _seconds(decode, shape, rows, steps, top_p, clock)

        single, seconds = _compare(partial(seconds_of, 1.0))
        costs.append(StepCost(rows, seconds, _compare(partial(seconds_of, _TOP_P))[1] if seconds else 0.0))
        if single > _MAX_STEP_S:
            break
    return tuple(costs)


def _compare(seconds_of: Callable[[int], float]) -> tuple[float, float]:
    """Return the seconds of single steps, and those of a step in ticks of several; 0 if they are no shorter.

    Args:
        seconds_of: measures ticks of so many steps.
    """
    single, seconds = seconds_of(1), seconds_of(_STEPS)
    if seconds * _GAIN < single:  # something else may have held up the single steps for a moment
        single = min(single, seconds_of(1))
    return single, seconds if seconds * _GAIN < single else 0.0


def _seconds(
    decode: Decode, shape: Shape, rows: int, steps: int, top_p: float, clock: Callable[[], float]
) -> float:
    """Return the shortest time of a step in a few ticks of so many rows, the first of which has a top_p.

    It is infinite where a tick has had fewer steps: its draws were not clear, or its logits too many.
    """
    for index, row in enumerate(rows_of(shape, rows, _TOKENS)):
        if index == 0:
            row.request = row.request._replace(sampling=Sampling(top_p=top_p))
        decode.join(row, start_decoding(row, None))
    made: list[int] = []
    seconds = shortest_seconds(lambda: made.append(decode.run().tokens), clock)
    return seconds / steps if min(made) == rows * steps else math.inf
