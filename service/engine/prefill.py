"""Chunk ticks: rows with prefill steps left, a few time steps at a time."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import BoundChunk, Cell, Shape
from service.engine.chunks import ChunkPlan, plan_chunk, steps_for
from service.engine.prefill_buffer import PrefillBuffer
from service.engine.request import Final, Goal, Row, StateRow, SuspendedRow
from service.engine.sampling import logprobs_of, with_alternatives
from service.engine.slots import Held, Pool
from service.runtime import Chunk

_GOALS = tuple(Goal)
_LAST, _EVERY, _SCORE = map(_GOALS.index, (Goal.LAST, Goal.EVERY, Goal.SCORE))
_STEPWISE = (Goal.EVERY, Goal.SCORE)  # these keep outputs of every chunk tick
_COLUMNS = {
    "start": np.int64,  # position of the row's next step in the prefill buffer
    "remaining": np.int64,  # steps that chunk ticks have still to run
    "goal": np.int64,  # its place in _GOALS
    "end": np.int64,  # position past the window's last step; _LOADED where nothing is left to load
}
_LOADED = np.iinfo(np.int64).max
# Bindings of a few KiB each that are kept; making one takes about as long as a tick of a small model.
_MAX_BINDINGS = 256
_SMOOTHING = 0.02
_FIRST_MEAN_STEPS = 50.0


class Finished(NamedTuple):
    """A row whose prefill steps have been run, with its answer; None for GENERATE, which decodes now."""

    row: Row
    answer: Any


class ChunkResult(NamedTuple):
    """The result of a chunk tick.

    Attributes:
        finished: rows whose prefill steps have been run.
        failed: rows whose scoring or answer raised, with the error; they have no answer.
        useful: valid time steps.
        padded: the others.
        lengths: valid time steps of each row, integers (B,).
    """

    finished: list[Finished]
    failed: dict[Row, Exception]
    useful: int
    padded: int
    lengths: NDArray[np.int64]


class _Arrays:
    """The arrays that chunk ticks are bound to, and a binding for each shape of a tick.

    First axes are flat, so that a tick of any (rows, steps) is a contiguous view.
    """

    def __init__(self, cell: Cell, shape: Shape, rows: int, chunk: int) -> None:
        self._cell = cell
        self._inputs = shape.inputs(rows * chunk)
        self.lengths = np.ones(rows, np.int32)
        self.wanted = np.zeros(rows * chunk, np.int64)
        self.outputs = np.zeros((rows * chunk, shape.outputs), np.float32)
        self._bindings: OrderedDict[tuple[int, int, int, int], BoundChunk] = OrderedDict()

    def inputs(self, rows: int, steps: int) -> NDArray[Any]:
        """Return the part of the input array that a tick of this shape uses."""
        return self._inputs[: rows * steps].reshape(rows, steps, *self._inputs.shape[1:])

    def bind(self, pool: Pool, steps: int, count: int) -> BoundChunk:
        """Return the binding of a tick's shape; the least recently used ones are dropped.

        Positions wanted are rounded up to a power of two, to keep the shapes few: the surplus asks for
        position 0 and is ignored.
        """
        rows = len(pool)
        asked = min(1 << (count - 1).bit_length() if count else 0, rows * steps)
        self.wanted[count:asked] = 0
        key = (pool.parity, rows, steps, asked)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.popitem(last=False)
            before, after = ([tensor[:rows] for tensor in side] for side in (pool.front, pool.back))
            lengths, wanted, outputs = self.lengths[:rows], self.wanted[:asked], self.outputs[:asked]
            chunk = Chunk(self.inputs(rows, steps), lengths, before, wanted, outputs, after)
            binding = self._bindings[key] = self._cell.bind(chunk)
        else:
            self._bindings.move_to_end(key)
        return binding


class Prefill:
    """The rows with prefill steps left and their chunk ticks.

    Args:
        cell: runs chunks.
        shape: widths of its tensors.
        rows: rows that it holds at most.
        chunk: time steps of a tick at most.
        overhead: what comes with each tick whatever its steps, in steps of one row.
        max_steps: time steps of all rows in a tick at most; 0: as many as rows and chunk allow.

    Attributes:
        pool: the rows.
        held: how many each client has.
    """

    def __init__(
        self, cell: Cell, shape: Shape, rows: int, chunk: int, overhead: float, max_steps: int = 0
    ) -> None:
        self._chunk = chunk
        self._max_steps = max_steps or rows * chunk
        self._overhead = overhead
        self._mean_steps = _FIRST_MEAN_STEPS
        self._num_scored = 0
        self._num_every = 0
        self._steps_left = 0
        self.pool = Pool(rows, shape, _COLUMNS)
        self.held = Held()
        self._buffer = PrefillBuffer(shape.features, rows, chunk)
        self._arrays = _Arrays(cell, shape, rows, chunk)
        self._within = np.arange(chunk)

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def steps_left(self) -> int:
        """Steps that all rows have left; those of a row that left early count until the next tick."""
        return self._steps_left if len(self.pool) else 0

    def join(self, row: Row, skip: int = 0, state: StateRow | None = None) -> None:
        """Take a row in.

        Args:
            row: one with more than `skip` prefill steps.
            skip: steps of its input that have been run.
            state: state after those; None: the start of a sequence.

        Raises:
            ValueError: the row's data does not fit, or it has no prefill steps left.
        """
        request = row.request
        if request.goal in _STEPWISE and row.pieces is None:
            row.pieces = []
        steps = request.prefill_steps - skip
        if steps < 1:
            raise ValueError(f"expected at least 1 prefill step, found {steps}")
        inputs = self._inputs_left(row, steps)
        start = self._buffer.add(inputs)
        end = self._end(start, inputs)
        values = {"start": start, "remaining": steps, "goal": _GOALS.index(request.goal), "end": end}
        try:
            self.pool.join(row, state, values)
        except Exception:
            self._buffer.release(start)
            raise
        self.held.add(row)
        self._count(request.goal, 1)
        self._steps_left = steps + self.steps_left if len(self.pool) > 1 else steps
        self._mean_steps += _SMOOTHING * (steps - self._mean_steps)

    def _count(self, goal: Goal, change: int) -> None:
        self._num_scored += change * (goal is Goal.SCORE)
        self._num_every += change * (goal is Goal.EVERY)

    def _inputs_left(self, row: Row, steps: int) -> NDArray[Any]:
        """Return the inputs of the last so many prefill steps, and a scored row's last token.

        That token is no step, but it is looked up in the buffer.
        """
        end = row.request.prefill_steps
        return row.request.inputs[end - steps : end + (row.request.goal is Goal.SCORE)]

    def _end(self, start: int, inputs: NDArray[Any]) -> int:
        """Return the end of a window in which inputs have been loaded from a start."""
        return _LOADED if len(inputs) <= self._buffer.window else start + self._buffer.window

    def _load(self, lacking: NDArray[np.int64]) -> None:
        """Load the windows of rows anew, given by their indexes, from the steps that are left."""
        columns = self.pool.columns
        for index in lacking.tolist():
            inputs = self._inputs_left(self.pool.rows[index], int(columns["remaining"][index]))
            start = columns["start"][index] = self._buffer.load(int(columns["start"][index]), inputs)
            columns["end"][index] = self._end(start, inputs)

    def leave(self, row: Row) -> None:
        """Take a row out."""
        self._buffer.release(int(self.pool.columns["start"][self.pool.index_of(row)]))
        self.held.remove(row)
        self._count(row.request.goal, -1)
        self.pool.leave(row)

    def suspend(self, row: Row) -> SuspendedRow:
        """Take a row out, to join again with what is returned; its outputs so far stay with it."""
        left = int(self.pool.columns["remaining"][self.pool.index_of(row)])
        suspended = SuspendedRow(row.request.prefill_steps - left, self.pool.state_of(row))
        self.leave(row)
        return suspended

    def run(self) -> ChunkResult:
        """Run one tick of every row. Finished rows stay in the pool, for their state to be taken.

        Raises:
            ModelFailure: from the cell; the state of all rows is lost.
        """
        pool = self.pool
        rows = len(pool)
        starts, remaining, goals, ends = (column[:rows] for column in pool.columns.values())
        max_steps = min(self._chunk, max(1, self._max_steps // rows))
        lengths = np.minimum(remaining, steps_for(rows, self._mean_steps, self._overhead, max_steps))
        if len(lacking := (starts + lengths >= ends).nonzero()[0]):
            self._load(lacking)
        finished = (lengths == remaining).nonzero()[0]
        answered = finished[goals[finished] == _LAST]
        scored = (goals == _SCORE).nonzero()[0] if self._num_scored else finished[:0]
        every = (goals == _EVERY).nonzero()[0] if self._num_every else finished[:0]
        plan = plan_chunk(starts, lengths, scored, every, answered)
        count = len(plan.wanted)
        arrays = self._arrays
        binding = arrays.bind(pool, plan.steps, count)
        arrays.lengths[:rows] = lengths
        arrays.wanted[:count] = plan.wanted
        self._buffer.take(starts[:, None] + self._within[: plan.steps], arrays.inputs(rows, plan.steps))
        binding.run()
        pool.flip()
        output = arrays.outputs[:count]
        failed = self._keep_scores(plan, output, scored, lengths[scored]) if len(scored) else {}
        if len(every):
            self._keep_every(output[len(plan.targets) :], every, lengths[every])
        starts += lengths
        remaining -= lengths
        self._steps_left = int(remaining.sum())
        useful = int(lengths.sum())
        answers = output[count - len(answered) :].copy()
        ended = self._finished(finished, answers, failed)
        return ChunkResult(ended, failed, useful, rows * plan.steps - useful, lengths)

    def _keep_scores(
        self,
        plan: ChunkPlan,
        output: NDArray[np.float32],
        scored: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> dict[Row, Exception]:
        """Add to each scored row the log-probabilities of this chunk; return rows where that raised."""
        logits, targets = output[: len(plan.targets)], self._buffer.take(plan.targets)
        ends = np.cumsum(lengths)[:-1]
        rows = [self.pool.rows[index] for index in scored.tolist()]
        try:
            pieces = np.split(logprobs_of(logits, targets), ends)
            if any(row.request.num_alternatives for row in rows):
                pieces = list(map(_scores_of, rows, np.split(logits, ends), pieces))
        except Exception:
            return _keep_one_by_one(rows, np.split(logits, ends), np.split(targets, ends))
        for row, piece in zip(rows, pieces, strict=True):
            _pieces_of(row).append(piece)
        return {}

    def _keep_every(
        self, output: NDArray[np.float32], every: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> None:
        """Add to each row whose every output is wanted those of this chunk, which come first in `output`."""
        ends = np.cumsum(lengths)
        for index, piece in zip(every.tolist(), np.split(output[: ends[-1]], ends[:-1]), strict=True):
            _pieces_of(self.pool.rows[index]).append(piece.copy())

    def _finished(
        self, indexes: NDArray[np.int64], answers: NDArray[np.float32], failed: dict[Row, Exception]
    ) -> list[Finished]:
        """Return the rows that have finished, with answers; add those whose answer raises to `failed`."""
        found = []
        outputs = iter(answers)
        for index in indexes.tolist():
            row = self.pool.rows[index]
            if row not in failed:
                try:
                    found.append(Finished(row, self._answer(row, outputs)))
                except Exception as error:
                    failed[row] = error
        return found

    def _answer(self, row: Row, outputs: Iterator[NDArray[np.float32]]) -> Any:
        if row.generates:
            return None
        output = next(outputs) if row.request.goal is Goal.LAST else np.concatenate(_pieces_of(row))
        return Final(output, self.pool.state_of(row)) if row.request.keeps_state else output


def _pieces_of(row: Row) -> list[NDArray[np.float32]]:
    assert row.pieces is not None, "such a row has a list since it joined"
    return row.pieces


def _scores_of(row: Row, logits: NDArray[np.float32], logprobs: NDArray[np.float32]) -> NDArray[Any]:
    """Return what a row keeps of a chunk: log-probabilities, beside alternatives where it wants them."""
    count = row.request.num_alternatives
    return with_alternatives(logits, logprobs, count) if count else logprobs


def _keep_one_by_one(
    rows: list[Row], logits: list[NDArray[np.float32]], targets: list[NDArray[Any]]
) -> dict[Row, Exception]:
    """Score each row alone, so that the one whose tokens raise is known and the others go on."""
    failed: dict[Row, Exception] = {}
    for row, own_logits, own_targets in zip(rows, logits, targets, strict=True):
        try:
            _pieces_of(row).append(_scores_of(row, own_logits, logprobs_of(own_logits, own_targets)))
        except Exception as error:
            failed[row] = error
    return failed
