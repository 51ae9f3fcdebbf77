"""The engine of networks that look both ways: runs whole sequences beside others of nearly the same length.

A batch cannot be cut once it runs, so its size is bounded, and messages and deadlines are looked at between
batches. A row waits, runs once, and is over.
"""

import time
from collections.abc import Callable

from service.engine.cell import Shape, WholeCell
from service.engine.core import NOBODY, Active, EngineCore, Facts
from service.engine.estimator import Estimator
from service.engine.length_queue import LengthQueue
from service.engine.limits import Limits
from service.engine.request import Row
from service.engine.ticks import Ran
from service.engine.whole_arrays import Gathered, answer_of, check_output, gather
from service.engine.whole_batches import pick_batch
from service.errors import ModelFailure
from service.observability.metrics import EngineMetrics

# The kind of its ticks in metrics.
TICK = "whole"


class WholeEngine(EngineCore):
    """Runs rows of one model, each from its first step to its last in one batch.

    Args:
        name: name of the model, for error texts.
        cell: runs batches.
        shape: widths of its tensors.
        limits: `chunk_rows` rows and `chunk_steps` time steps of a batch at most, and `max_padding`.
        metrics: counts batches and rows.
        clock: returns monotonic seconds.
        number: index of the engine in its group.
    """

    def __init__(
        self,
        name: str,
        cell: WholeCell,
        shape: Shape,
        limits: Limits,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
        number: int = 0,
    ) -> None:
        self._cell = cell
        self._shape = shape
        self._max_rows = limits.chunk_rows or limits.slots
        self._waiting = LengthQueue()
        self._running: list[Row] = []
        estimator = Estimator(limits.steps_per_second, 0.0)
        super().__init__(name, limits, metrics, clock, Facts(number), self._waiting, estimator)

    def _advance(self, started: float) -> Active:
        """Run a batch, if a row waits."""
        self._waiting.end_turn()
        if self._waiting:
            self._running = self._seat_batch()
            self._run(self._running, started)
            self._running = []
        return NOBODY

    def _seat_batch(self) -> list[Row]:
        """Take the rows of the next batch out of the queue."""
        limits = self.limits
        rows = pick_batch(self._waiting, self._max_rows, limits.chunk_steps, limits.max_padding)
        self._waiting.take_batch(rows)
        now = self.clock()
        for row in rows:
            self._begin(row, now)
        # A run takes long, and callers read meanwhile whether the engine is idle.
        self._publish(Active(len(rows), 0, 0))
        return rows

    def _run(self, rows: list[Row], started: float) -> None:
        """Run a batch; where the runtime fails, every row of it ends."""
        batch = gather(rows, self._shape)
        for row, error in batch.failed.items():
            self._end_faulty(row, error)
        if not batch.rows:
            return
        recorder = self.recorder
        if recorder is not None:
            recorder.begin(TICK, batch.rows)
        try:
            output = self._cell.run(batch.inputs, batch.lengths if self._cell.takes_lengths else None)
            check_output(output, batch, self._shape)
        except ModelFailure as failure:
            for row in batch.rows:
                self._end(row, failure)
            return
        ended = self.clock()
        for index, row in enumerate(batch.rows):
            try:
                answer = answer_of(row, output, index)
            except Exception as error:
                self._end_faulty(row, error)
            else:
                self._answer(row, answer, ended)
        self._count(batch, started, ended)
        if recorder is not None:
            recorder.end(started, ended, Ran(batch.useful, batch.padded, batch.lengths), len(self._waiting))

    def _count(self, batch: Gathered, started: float, ended: float) -> None:
        """Count a batch that ran, for metrics and estimates."""
        rows, useful, padded = len(batch.rows), batch.useful, batch.padded
        self._metrics.ticked(TICK, ended - started, rows, useful, padded)
        # A time step costs as much as its rows and a fixed number more. Counted so, batches of few rows and
        # full ones measure the same throughput.
        full, overhead = self._max_rows, self.limits.overhead
        work = (useful + padded) / rows * (rows + overhead) * full / (full + overhead)
        self.estimator.add_tick(rows, round(work), started, ended, bool(self._waiting))
        self.estimator.measure_ends(ended)

    def _release(self, row: Row) -> None:
        if row in self._waiting:
            self._waiting.remove(row)

    def _resume(self, row: Row) -> None:
        """Do nothing: no row is ever suspended."""

    def _abandon(self) -> list[Row]:
        rows, self._running = self._running, []
        return rows

    def check_integrity(self) -> None:
        """Raise AssertionError unless the queue's counts agree and no row runs between turns."""
        super().check_integrity()
        assert not self._running, "a row runs between turns"
