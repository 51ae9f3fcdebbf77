"""Chunk ticks: rows with input left, a few time steps at a time."""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import BoundChunk, Cell, Shape
from service.engine.feed import Feed
from service.engine.plan import ChunkPlan, plan_chunk, steps_for
from service.engine.sampling import logprobs_of
from service.engine.sequence import Ended, Goal, PausedRow, Sequence, StateRow
from service.engine.slots import Pool
from service.runtime import Chunk

_GOALS = tuple(Goal)
_LAST, _SCORE = _GOALS.index(Goal.LAST), _GOALS.index(Goal.SCORE)
# What is known of a row with input left.
_COLUMNS = {
    "start": np.int64,  # where its next step is in the feed
    "remaining": np.int64,  # steps that chunk ticks have still to run
    "goal": np.int64,  # its place in _GOALS
}
# Bindings of a few KiB each that are kept; making one takes about as long as a tick of a small model.
_MOST_BINDINGS = 256
_SMOOTHING = 0.02
_FIRST_GUESS_STEPS = 50.0


class Finished(NamedTuple):
    """A row whose input has been run: LAST and SCORE have their answer, GENERATE goes on to decode."""

    sequence: Sequence
    answer: Any


class Ran(NamedTuple):
    """What a tick did: rows that are through, valid time steps and padded ones."""

    finished: list[Finished]
    useful: int
    padded: int


class Prefill:
    """The rows with input left and their chunk ticks.

    Args:
        cell: runs chunks.
        shape: of its tensors.
        rows: most rows.
        chunk: most time steps a tick.
        overhead: a tick's fixed cost, in steps of one row.
    """

    def __init__(self, cell: Cell, shape: Shape, rows: int, chunk: int, overhead: float) -> None:
        self._cell = cell
        self._chunk = chunk
        self._overhead = overhead
        self._mean_steps = _FIRST_GUESS_STEPS
        self._num_scored = 0
        self._steps_left = 0
        self.pool = Pool(rows, shape.state, _COLUMNS)
        self._feed = Feed(shape.features)
        # First axis flat, so that any (rows, steps) of a tick is a contiguous view.
        self._inputs = shape.inputs(rows * chunk)
        self._lengths = np.ones(rows, np.int32)
        self._wanted = np.zeros(rows * chunk, np.int64)
        self._outputs = np.zeros((rows * chunk, shape.outputs), np.float32)
        self._bindings: OrderedDict[tuple[int, int, int, int], BoundChunk] = OrderedDict()
        self._within = np.arange(chunk)

    def __len__(self) -> int:
        return len(self.pool)

    @property
    def steps_left(self) -> int:
        """Steps of all rows that are still to be run; those of a row that left early count until the next
        tick.
        """
        return self._steps_left if len(self.pool) else 0

    def join(self, sequence: Sequence, skip: int = 0, state: StateRow | None = None) -> None:
        """Take a row in.

        Args:
            sequence: with more than `skip` steps to prefill.
            skip: steps of its input that have been run already.
            state: after those, or the sequence's own; None: zeros.
        """
        is_scored = sequence.goal is Goal.SCORE
        if is_scored and sequence.pieces is None:
            sequence.pieces = []
        steps = sequence.prefill_steps - skip
        # A scored sequence's last token is no step, but it is looked up in the feed.
        inputs = sequence.inputs[skip : skip + steps + is_scored]
        if not self._feed.has_room(len(inputs)):
            starts, remaining, goals = (column[: len(self.pool)] for column in self.pool.columns.values())
            starts[:] = self._feed.compact(starts, remaining + (goals == _SCORE), len(inputs))
        self.pool.join(
            sequence,
            state,
            {"start": self._feed.add(inputs), "remaining": steps, "goal": _GOALS.index(sequence.goal)},
        )
        self._num_scored += is_scored
        self._steps_left = steps + self.steps_left if len(self.pool) > 1 else steps
        self._mean_steps += _SMOOTHING * (steps - self._mean_steps)

    def leave(self, sequence: Sequence) -> None:
        """Take a row out."""
        self._num_scored -= sequence.goal is Goal.SCORE
        self.pool.leave(sequence)

    def pause(self, sequence: Sequence) -> PausedRow:
        """Take a row out, to join again later with what is returned; its scores so far stay with the
        sequence.
        """
        left = int(self.pool.columns["remaining"][self.pool.row_of(sequence)])
        paused = PausedRow(sequence.prefill_steps - left, self.pool.state_of(sequence))
        self.leave(sequence)
        return paused

    def run(self) -> Ran:
        """One tick of every row. Those finished stay in the pool, for their state to be taken.

        Raises:
            ModelFailure: from the cell; the state of all rows is lost.
        """
        pool = self.pool
        rows = len(pool.sequences)
        starts, remaining, goals = (column[:rows] for column in pool.columns.values())
        lengths = np.minimum(remaining, steps_for(rows, self._mean_steps, self._overhead, self._chunk))
        finished = (lengths == remaining).nonzero()[0]
        answered = finished[goals[finished] == _LAST]
        scored = (goals == _SCORE).nonzero()[0] if self._num_scored else finished[:0]
        plan = plan_chunk(starts, lengths, scored, answered)
        count = len(plan.wanted)
        binding = self._bind(rows, plan.steps, count)
        self._lengths[:rows] = lengths
        self._wanted[:count] = plan.wanted
        self._feed.take(starts[:, None] + self._within[: plan.steps], self._view(rows, plan.steps))
        binding.run()
        pool.flip()
        output = self._outputs[:count]
        if len(scored):
            self._keep_scores(plan, output, scored, lengths[scored])
        starts += lengths
        remaining -= lengths
        self._steps_left = int(remaining.sum())
        useful = int(lengths.sum())
        return Ran(
            self._finished(finished, output[len(plan.targets) :].copy()), useful, rows * plan.steps - useful
        )

    def _view(self, rows: int, steps: int) -> NDArray[Any]:
        """Where a tick of this shape has its inputs."""
        return self._inputs[: rows * steps].reshape(rows, steps, *self._inputs.shape[1:])

    def _bind(self, rows: int, steps: int, count: int) -> BoundChunk:
        """The arrays of a shape are always the same ones, so its binding is kept for either side of the pool,
        until others were used more lately.

        Positions wanted are rounded up to a power of two, to keep the shapes few: those beyond ask for
            position 0, and nobody looks at the answer.
        """
        asked = min(1 << (count - 1).bit_length() if count else 0, rows * steps)
        self._wanted[count:asked] = 0
        key = (self.pool.parity, rows, steps, asked)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= _MOST_BINDINGS:
                self._bindings.popitem(last=False)
            before, after = ([tensor[:rows] for tensor in side] for side in (self.pool.front, self.pool.back))
            chunk = Chunk(
                self._view(rows, steps),
                self._lengths[:rows],
                before,
                self._wanted[:asked],
                self._outputs[:asked],
                after,
            )
            binding = self._bindings[key] = self._cell.bind(chunk)
        else:
            self._bindings.move_to_end(key)
        return binding

    def _keep_scores(
        self,
        plan: ChunkPlan,
        output: NDArray[np.float32],
        scored: NDArray[np.int64],
        lengths: NDArray[np.int64],
    ) -> None:
        """The log-probabilities that this chunk adds to each scored row."""
        logprobs = logprobs_of(output[: len(plan.targets)], self._feed.take(plan.targets))
        for row, piece in zip(scored.tolist(), np.split(logprobs, np.cumsum(lengths)[:-1]), strict=True):
            pieces = self.pool.sequences[row].pieces
            assert pieces is not None, "a scored row has pieces since it joined"
            pieces.append(piece)

    def _finished(self, rows: NDArray[np.int64], answers: NDArray[np.float32]) -> list[Finished]:
        found = []
        answer = iter(answers)
        for row in rows.tolist():
            sequence = self.pool.sequences[row]
            if sequence.goal is Goal.LAST:
                output = next(answer)
                found.append(
                    Finished(
                        sequence,
                        Ended(output, self.pool.state_of(sequence)) if sequence.keeps_state else output,
                    )
                )
            else:
                found.append(Finished(sequence, np.concatenate(sequence.pieces) if sequence.pieces else None))
        return found
