"""Sizes of whole batches on this machine: measured at warm-up on the model's own graph.

A time step of B rows takes about (o + B) times the cost of one row's step, o being a time step's fixed cost.
Rows beyond those at which a step gets no cheaper bring nothing but padding and longer batches.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Shape, WholeCell
from service.engine.inbox import Submit
from service.engine.limits import Limits
from service.engine.request import Goal, Request, Row
from service.engine.whole import WholeEngine
from service.models.tuning import (
    CLEARLY,
    COLD,
    MAX_INTERPRETER,
    MAX_OUTPUT_BYTES,
    NullReceiver,
    Tuning,
    Wish,
    shortest_seconds,
)
from service.observability.metrics import EngineMetrics
from service.observability.times import Times

# Rows of a batch that are tried, rising, and its time steps, where a window does not fix them.
_ROWS = (4, 8, 16, 32)
STEPS = 32
# A batch cannot be cut once it runs: it should take no longer than this. But large models run sequences of so
# many steps side by side all the same, and a longer sequence runs alone however long it takes.
_MAX_RUN_S = 0.05
_SHARED_STEPS = 64
# Sequences of so many steps must not hold the event loop longer than a hand-over to a thread takes.
_LONG = 4096
# Where rows are next to free, the fixed cost of a time step is taken to be that of so many.
_MAX_OVERHEAD = 64.0


def tune_whole(
    cell: WholeCell,
    shape: Shape,
    wish: Wish,
    clock: Callable[[], float] = time.perf_counter,
    steps: int = STEPS,
) -> Tuning:
    """Measure, and warm the graph up for what was chosen.

    Args:
        cell: runs batches.
        shape: widths of its tensors.
        wish: `chunk_rows` are the rows of a batch, else they are measured, `slots` at most.
        clock: returns seconds.
        steps: time steps of the sequences that are run, those of a window where there is one.

    Raises:
        ModelFailure: the graph fails on rows of zeros.
    """
    one = _run_seconds(cell, shape, 1, clock, steps)
    rows, seconds = _best_rows(cell, shape, _candidates(wish), clock, steps)
    per_step = seconds / (rows * steps)
    own = _own_seconds(shape, rows, clock)
    max_values = MAX_OUTPUT_BYTES // (4 * max(shape.outputs, shape.features or 1))
    max_steps = max(1, min(max(int(_MAX_RUN_S / per_step), rows * _SHARED_STEPS), max_values))
    return Tuning(
        slots=rows,
        chunk=max_steps,
        chunk_rows=rows,
        overhead=_overhead(one, seconds, rows),
        steps_per_second=1 / per_step,
        max_engines=max(1, int(MAX_INTERPRETER * seconds / (COLD[1] * own))),
        tick_s=max(seconds, one * _LONG / steps),
        chunk_steps=max_steps,
    )


def full_seconds(
    cell: WholeCell,
    shape: Shape,
    tuning: Tuning,
    clock: Callable[[], float] = time.perf_counter,
    steps: int = STEPS,
) -> float:
    """Return the seconds of a full batch."""
    return _run_seconds(cell, shape, tuning.chunk_rows, clock, steps)


def seconds_of_one(
    cell: WholeCell, shape: Shape, clock: Callable[[], float] = time.perf_counter, steps: int = STEPS
) -> float:
    """Return the seconds that a time step takes of a sequence that runs alone."""
    return _run_seconds(cell, shape, 1, clock, steps) / steps


def _candidates(wish: Wish) -> Sequence[int]:
    """Return the rows of a batch that are tried, rising."""
    if wish.chunk_rows:
        return [min(wish.chunk_rows, wish.slots or wish.chunk_rows)]
    max_rows = wish.slots or _ROWS[-1]
    return [rows for rows in _ROWS if rows <= max_rows] or [max_rows]


def _best_rows(
    cell: WholeCell, shape: Shape, candidates: Sequence[int], clock: Callable[[], float], steps: int
) -> tuple[int, float]:
    """Return the fewest rows beyond which a step gets no cheaper, and the seconds of their batch."""
    tried: dict[int, float] = {}
    for rows in candidates:
        tried[rows] = seconds = _run_seconds(cell, shape, rows, clock, steps)
        if 2 * seconds > _MAX_RUN_S:
            break
    cheapest = min(seconds / rows for rows, seconds in tried.items())
    return next((rows, seconds) for rows, seconds in tried.items() if seconds / rows <= CLEARLY * cheapest)


def _overhead(one: float, seconds: float, rows: int) -> float:
    """Return the fixed cost of a time step, in rows.

    It follows from the seconds of a batch of one row and of one of several.
    """
    if rows == 1:
        return 0.0
    per_row = (seconds - one) / (rows - 1)
    return max(0.0, min(_MAX_OVERHEAD, one / per_row - 1)) if per_row > 0 else _MAX_OVERHEAD


def _run_seconds(cell: WholeCell, shape: Shape, rows: int, clock: Callable[[], float], steps: int) -> float:
    """Return the shortest time of a few batches of so many rows and time steps."""
    flat = shape.inputs(rows * steps)
    inputs = flat.reshape(rows, steps, *flat.shape[1:])
    lengths = np.full(rows, steps, np.int32) if cell.takes_lengths else None
    return shortest_seconds(lambda: cell.run(inputs, lengths), clock)


def _own_seconds(shape: Shape, rows: int, clock: Callable[[], float]) -> float:
    """Return the seconds of the engine's own code in a turn with a batch."""
    limits = Limits(rows, rows * STEPS, chunk_steps=rows * STEPS)
    engine = WholeEngine("warm-up", _NullCell(shape.outputs), shape, limits, EngineMetrics())
    inputs = shape.inputs(STEPS)

    def run() -> None:
        request = Request(inputs, Goal.LAST)
        engine.inbox.put(Submit([Row(request, NullReceiver(), Times(0.0)) for _ in range(rows)]))
        engine.run_turn()

    return shortest_seconds(run, clock)


class _NullCell:
    """A cell that computes nothing."""

    takes_lengths = True

    def __init__(self, outputs: int) -> None:
        self._outputs = outputs

    def run(self, inputs: NDArray[Any], lengths: NDArray[np.int32] | None) -> NDArray[np.float32]:  # noqa: ARG002
        return np.zeros((len(inputs), self._outputs), np.float32)
