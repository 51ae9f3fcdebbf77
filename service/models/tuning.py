"""Sizes of ticks on this machine: measured at warm-up with the engine's own ticks on the model's own graph.

A chunk tick of B rows and t steps takes about (o + B t) times the cost of one row's step. Rows are added
while they make the step cheaper; o, the tick's fixed cost, then says how many steps a tick should run
(service.engine.chunks.steps_for). What the operator sets is not measured.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.engine.cell import Cell, Shape, StepSize
from service.engine.decode import Decode, start_decoding
from service.engine.driver import MAX_HOLD_S, Kind
from service.engine.limits import BUDGET_S, Limits
from service.engine.prefill import Prefill
from service.engine.request import Goal, Request, Row
from service.models.step_costs import MAX_STEP_TICK_S, WRITE_S, StepCost, step_sizes
from service.observability.times import Times
from service.runtime import Chunk

_RUNS = 4
# One measurement ends after its first run past so many seconds: large models differ by more than the noise.
_MAX_MEASURE_S = 0.02
# Rows of a chunk tick that are tried, rising: doubled while a step gets no dearer, since what comes with each
# tick, and is cold by then, is shared by more; but no tick may be so long that a short sequence waits for it.
_ROWS = (64, 128, 256)
_STEPS = 4
_MAX_CHUNK_S = 0.01
# The smallest difference that is clear on a machine that others use.
CLEARLY = 1.06
# Generating rows: as many as a tick can serve in this time, so that each stream still gets 10 tokens a
# second.
_SLOTS = (64, 128, 256)
_MAX_STEP_S = 0.1
# Few rows may run many steps a tick; the head's outputs of a whole tick must stay small.
_MAX_CHUNK = 64
MAX_OUTPUT_BYTES = 64 << 20
# The tick's own code takes so many times longer behind a graph that has emptied the processor's caches than
# alone (measured: 3 times).
COLD = (2.0, 4.0)
# Part of the time in which the code of all engines of a model may hold the interpreter.
MAX_INTERPRETER = 0.6
_UNBOUNDED = 1e12
# Parts of the longest hold of the event loop: for a full chunk tick, and for the bookkeeping of its turn.
_LOOP_SHARE, _LOOP_BUDGET = 0.5, 0.3


@dataclass(frozen=True, slots=True)
class Wish:
    """Sizes that the operator has set; None: to be measured. The meanings are those of `Tuning`."""

    slots: int | None = None
    chunk: int | None = None
    chunk_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes of an engine's ticks.

    Attributes:
        slots: rows active side by side.
        chunk: time steps of a chunk tick at most.
        chunk_rows: rows of a chunk tick at most.
        overhead: a chunk tick's fixed cost, in steps of one row.
        steps_per_second: time steps of all rows, in full chunk ticks of one engine.
        max_engines: engines that the interpreter can keep busy, since it runs the code of one tick at a time.
        tick_s: seconds of the longest full tick that was measured.
        driver: what calls the turns: a thread, or the event loop.
        chunk_steps: time steps of all rows in a chunk tick at most; 0: as many as rows and chunk allow.
        step_costs: of ticks of several steps, by rows, which rise; none without a generation graph.
    """

    slots: int
    chunk: int
    chunk_rows: int
    overhead: float
    steps_per_second: float
    max_engines: int
    tick_s: float
    driver: Kind = "thread"
    chunk_steps: int = 0
    step_costs: tuple[StepCost, ...] = ()

    def limits(self, write_interval_s: float, prompt_cache_bytes: int) -> Limits:
        """Return an engine's limits; what is not measured is given."""
        return Limits(
            slots=self.slots,
            chunk=self.chunk,
            chunk_rows=self.chunk_rows,
            chunk_steps=self.chunk_steps,
            budget_s=_LOOP_BUDGET * MAX_HOLD_S if self.driver == "loop" else BUDGET_S,
            overhead=self.overhead,
            write_interval_s=write_interval_s,
            write_interval_row_s=WRITE_S,
            prompt_cache_bytes=prompt_cache_bytes,
            steps_per_second=self.steps_per_second,
        )

    def step_sizes(self, write_interval_s: float) -> tuple[StepSize, ...]:
        """Return the steps of step ticks by rows; none where a step at a time is run."""
        longest = _LOOP_SHARE * MAX_HOLD_S if self.driver == "loop" else MAX_STEP_TICK_S
        return step_sizes(self.step_costs, write_interval_s, longest)

    def for_loop(self) -> "Tuning":
        """Return the sizes for turns in the event loop: no chunk tick may hold it too long."""
        per_step = 1 / self.steps_per_second
        chunk_steps = int(_LOOP_SHARE * MAX_HOLD_S / per_step - self.overhead)
        return replace(self, driver="loop", chunk_steps=max(1, chunk_steps), max_engines=1)


def tune(
    cell: Cell,
    shape: Shape,
    generates: bool,
    wish: Wish,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuning:
    """Measure, and warm the graph up for what was chosen.

    Args:
        cell: runs chunks.
        shape: widths of its tensors.
        generates: whether rows go on to decode.
        wish: what is set already.
        clock: returns seconds.

    Raises:
        ModelFailure: the graph fails on rows of zeros.
    """
    if wish.chunk_rows or wish.slots:
        chunk_rows = wish.chunk_rows or min(wish.slots or _ROWS[0], _ROWS[0])
        seconds = _chunk_seconds(cell, shape, chunk_rows, _STEPS, clock)
    else:
        chunk_rows, seconds = _best_rows(cell, shape, clock)
    chunk = wish.chunk or max(1, min(_MAX_CHUNK, MAX_OUTPUT_BYTES // (4 * shape.outputs * chunk_rows)))
    per_step = seconds / (chunk_rows * _STEPS)
    slots = wish.slots or chunk_rows
    if generates and not wish.slots:
        slots = max([chunk_rows, *(one for one in _SLOTS if one * per_step <= _MAX_STEP_S)])
    own = _chunk_seconds(_NullCell(), shape, chunk_rows, 1, clock)
    return Tuning(
        slots=slots,
        chunk=chunk,
        chunk_rows=min(chunk_rows, slots),
        overhead=_fixed_seconds(cell, shape, chunk_rows, seconds, own, clock) / per_step,
        steps_per_second=1 / per_step,
        max_engines=max(1, int(MAX_INTERPRETER * seconds / (COLD[1] * own))),
        tick_s=max(seconds, _step_seconds(cell, shape, slots, clock) if generates else 0.0),
    )


def full_seconds(
    cell: Cell, shape: Shape, tuning: Tuning, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the seconds of a full chunk tick."""
    return _chunk_seconds(cell, shape, tuning.chunk_rows, _STEPS, clock)


def is_clearly_less(seconds: float, others: float) -> bool:
    """Return whether a time is shorter than another one by more than measurements differ by."""
    return seconds * CLEARLY < others


def seconds_of_one(cell: Cell, shape: Shape, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that a time step takes of a sequence that runs alone, a step at a time."""
    return _chunk_seconds(cell, shape, 1, 1, clock)


def _best_rows(cell: Cell, shape: Shape, clock: Callable[[], float]) -> tuple[int, float]:
    """Return the rows of a full chunk tick, and the seconds that it takes."""
    best = (_ROWS[0], _chunk_seconds(cell, shape, _ROWS[0], _STEPS, clock))
    for rows in _ROWS[1:]:
        if 2 * best[1] > _MAX_CHUNK_S:
            break
        seconds = _chunk_seconds(cell, shape, rows, _STEPS, clock)
        if best[1] / best[0] < seconds / rows:
            break
        best = (rows, seconds)
    return best


def _fixed_seconds(
    cell: Cell, shape: Shape, rows: int, seconds: float, own: float, clock: Callable[[], float]
) -> float:
    """Return the seconds of a chunk tick whatever its steps, within what its own code can take.

    They follow from a tick of one step and one of several.
    """
    one = _chunk_seconds(cell, shape, rows, 1, clock)
    shortest, longest = (times * own for times in COLD)
    return min(max(one - (seconds - one) / (_STEPS - 1), shortest), longest)


class _NullCell:
    """A cell that computes nothing."""

    def bind(self, chunk: Chunk) -> "_NullCell":  # noqa: ARG002
        return self

    def run(self) -> None:
        pass


def _chunk_seconds(cell: Cell, shape: Shape, rows: int, steps: int, clock: Callable[[], float]) -> float:
    """Return the shortest time of a few chunk ticks of so many rows and steps."""
    prefill = Prefill(cell, shape, rows, steps, _UNBOUNDED)
    for row in _rows(shape, Goal.LAST, rows, steps * (_RUNS + 2)):
        prefill.join(row)
    return shortest_seconds(prefill.run, clock)


def _step_seconds(cell: Cell, shape: Shape, rows: int, clock: Callable[[], float]) -> float:
    """Return the shortest time of a few step ticks of so many rows, which warms the widest one up."""
    decode = Decode(cell, shape, rows)
    for row in _rows(shape, Goal.GENERATE, rows, 1):
        decode.join(row, start_decoding(row, None))
    return shortest_seconds(decode.run, clock)


def shortest_seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the shortest of a few runs after the first, which pays for allocations."""
    run()
    shortest, total = float("inf"), 0.0
    for _ in range(_RUNS):
        started = clock()
        run()
        took = clock() - started
        shortest, total = min(shortest, took), total + took
        if total > _MAX_MEASURE_S:
            break
    return shortest


class NullReceiver:
    """A receiver that is never told anything: its rows are not an engine's."""

    backlog, max_backlog = 0, 1

    def receive(self, output: Any) -> None:  # noqa: ARG002
        """Refuse whatever comes."""
        raise AssertionError("nothing is delivered at warm-up")


def rows_of(shape: Shape, count: int, tokens: int) -> Iterator[Row]:
    """Yield rows of zeros that generate so many tokens."""
    yield from _rows(shape, Goal.GENERATE, count, 1, tokens)


def _rows(shape: Shape, goal: Goal, count: int, steps: int, tokens: int = _RUNS + 2) -> Iterator[Row]:
    inputs = np.zeros((steps, *shape.inputs(1).shape[1:]), shape.inputs(1).dtype)
    for _ in range(count):
        yield Row(Request(inputs, goal, max_tokens=tokens), NullReceiver(), Times(0.0))
