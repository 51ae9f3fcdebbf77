"""How many rows and time steps a tick should have on this machine: measured at warm-up with the engine's own
ticks on the model's own graph.

A chunk tick of B rows and t steps takes about (o + B t) times the cost of one row's step. Rows are added
while they make the step cheaper; o, the tick's fixed cost, then says how many steps a tick should run
(service.engine.plan.steps_for). What the operator sets is not measured.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.engine.cell import Cell, Shape
from service.engine.decode import Decode, first_row
from service.engine.limits import Limits
from service.engine.prefill import Prefill
from service.engine.sequence import Goal, Sequence
from service.runtime import Chunk

_RUNS = 4
# One measurement ends after its first run past so many seconds: large models differ by more than the noise.
_MOST_MEASURE_S = 0.02
# Rows of a chunk tick that are tried, rising: doubled while a step gets no dearer, since what comes with each
# tick, and is cold by then, is shared by more; but no tick may be so long that a short sequence waits for it.
_ROWS = (64, 128, 256)
_STEPS = 4
_MOST_CHUNK_S = 0.01
# A clear difference on a machine that others use, too.
_CLEARLY = 1.06
# Generating rows: as many as a tick can serve in this time, so that each stream still gets 10 tokens a
# second.
_SLOTS = (64, 128, 256)
_MOST_STEP_S = 0.1
# Few rows may run many steps a tick; the head's outputs of a whole tick must stay small.
_MOST_CHUNK = 64
_MOST_OUTPUT_BYTES = 64 << 20
# The tick's own code takes so many times longer behind a graph that has emptied the processor's caches than
# alone (measured: 3 times).
_COLD = (2.0, 4.0)
# So much of the time the code of all engines of a model may hold the interpreter.
_MOST_INTERPRETER = 0.6
_ALWAYS = 1e12
# Between two messages of a stream there is so much time for each stream that generates: a message costs grpc
# 0.05 to 0.2 ms (measured), and writing should leave most of a core to the engine.
_WRITE_S = 0.00075


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator has set; None: to be measured. The meanings are those of `Tuning`."""

    slots: int | None = None
    chunk: int | None = None
    chunk_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes of an engine's ticks.

    Attributes:
        slots: sequences active side by side.
        chunk: most time steps of a chunk tick.
        chunk_rows: most sequences in a chunk tick.
        overhead: a chunk tick's fixed cost, in steps of one row.
        steps_per_second: time steps of all rows, in full chunk ticks of one engine.
        most_engines: that the interpreter can keep busy, since it runs the code of one tick at a time.
    """

    slots: int
    chunk: int
    chunk_rows: int
    overhead: float
    steps_per_second: float
    most_engines: int

    def limits(self, max_waiting: int, gather_s: float, prompt_cache_bytes: int) -> Limits:
        """An engine's limits; what is not measured is given."""
        return Limits(
            slots=self.slots,
            chunk=self.chunk,
            max_waiting=max_waiting,
            chunk_rows=self.chunk_rows,
            overhead=self.overhead,
            gather_s=gather_s,
            gather_row_s=_WRITE_S,
            prompt_cache_bytes=prompt_cache_bytes,
            steps_per_second=self.steps_per_second,
        )


class _Nobody:
    """A receiver that is never told anything: its sequences are not the engine's."""

    backlog, most_backlog = 0, 1

    def receive(self, result: Any) -> None:  # noqa: ARG002
        raise AssertionError("nobody listens at warm-up")


def tune(
    cell: Cell, shape: Shape, generates: bool, wish: Wish, clock: Callable[[], float] = time.perf_counter
) -> Tuning:
    """Measure, and warm the graph up for what was chosen.

    Args:
        cell: runs chunks.
        shape: of its tensors.
        generates: whether rows go on to decode.
        wish: what is set already.
        clock: seconds.

    Raises:
        ModelFailure: the graph fails on rows of zeros.
    """
    if wish.chunk_rows or wish.slots:
        chunk_rows = wish.chunk_rows or min(wish.slots or _ROWS[0], _ROWS[0])
        seconds = _chunk_seconds(cell, shape, chunk_rows, _STEPS, clock)
    else:
        chunk_rows, seconds = _best_rows(cell, shape, clock)
    chunk = wish.chunk or max(1, min(_MOST_CHUNK, _MOST_OUTPUT_BYTES // (4 * shape.outputs * chunk_rows)))
    per_step = seconds / (chunk_rows * _STEPS)
    slots = wish.slots or (
        max([chunk_rows, *(one for one in _SLOTS if one * per_step <= _MOST_STEP_S)])
        if generates
        else chunk_rows
    )
    own = _chunk_seconds(_NullCell(), shape, chunk_rows, 1, clock)
    overhead = _fixed_seconds(cell, shape, chunk_rows, seconds, own, clock) / per_step
    if generates:
        _run_step(cell, shape, slots)
    most_engines = max(1, int(_MOST_INTERPRETER * seconds / (_COLD[1] * own)))
    return Tuning(slots, chunk, min(chunk_rows, slots), overhead, 1 / per_step, most_engines)


def is_faster(
    cell: Cell, other: Cell, shape: Shape, tuning: Tuning, clock: Callable[[], float] = time.perf_counter
) -> bool:
    """Whether a cell runs full chunk ticks clearly faster than another one."""
    mine, theirs = (_chunk_seconds(one, shape, tuning.chunk_rows, _STEPS, clock) for one in (cell, other))
    return mine * _CLEARLY < theirs


def _best_rows(cell: Cell, shape: Shape, clock: Callable[[], float]) -> tuple[int, float]:
    """Rows of a full chunk tick, and the seconds that it takes."""
    best = (_ROWS[0], _chunk_seconds(cell, shape, _ROWS[0], _STEPS, clock))
    for rows in _ROWS[1:]:
        if 2 * best[1] > _MOST_CHUNK_S:
            break
        seconds = _chunk_seconds(cell, shape, rows, _STEPS, clock)
        if best[1] / best[0] < seconds / rows:
            break
        best = (rows, seconds)
    return best


def _fixed_seconds(
    cell: Cell, shape: Shape, rows: int, seconds: float, own: float, clock: Callable[[], float]
) -> float:
    """What a chunk tick costs whatever its steps, from ticks of one step and of several, within what its own
    code can take.
    """
    one = _chunk_seconds(cell, shape, rows, 1, clock)
    least, most = (times * own for times in _COLD)
    return min(max(one - (seconds - one) / (_STEPS - 1), least), most)


class _NullCell:
    """A cell that computes nothing."""

    def bind(self, chunk: Chunk) -> "_NullCell":  # noqa: ARG002
        return self

    def run(self) -> None:
        pass


def _chunk_seconds(cell: Cell, shape: Shape, rows: int, steps: int, clock: Callable[[], float]) -> float:
    """The least time of a few chunk ticks of so many rows and steps."""
    prefill = Prefill(cell, shape, rows, steps, _ALWAYS)
    for sequence in _sequences(shape, Goal.LAST, rows, steps * (_RUNS + 2)):
        prefill.join(sequence)
    return _least_seconds(prefill.run, clock)


def _run_step(cell: Cell, shape: Shape, rows: int) -> None:
    """The widest step tick, so that no request pays for its allocations."""
    decode = Decode(cell, shape, rows)
    for sequence in _sequences(shape, Goal.GENERATE, rows, 1):
        decode.join(sequence, first_row(sequence, None))
    decode.run()


def _least_seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of a few runs after the first, which pays for allocations."""
    run()
    least, total = float("inf"), 0.0
    for _ in range(_RUNS):
        started = clock()
        run()
        took = clock() - started
        least, total = min(least, took), total + took
        if total > _MOST_MEASURE_S:
            break
    return least


def _sequences(shape: Shape, goal: Goal, count: int, steps: int) -> Iterator[Sequence]:
    inputs = np.zeros((steps, *shape.inputs(1).shape[1:]), shape.inputs(1).dtype)
    for _ in range(count):
        yield Sequence(inputs, goal, _Nobody(), 0.0, max_tokens=_RUNS + 2)
