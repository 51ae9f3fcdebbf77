"""The engine of networks that can be cut in time: seat rows, run a chunk or step tick, hand tokens over."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.active import ActiveRows
from service.engine.cell import PLAIN, Cell, Decoding, Shape
from service.engine.core import Active, EngineCore, Facts
from service.engine.estimator import Estimator
from service.engine.limits import Limits
from service.engine.prompt_cache import prompt_of
from service.engine.queue import FairQueue
from service.engine.request import Row
from service.engine.scheduler import Tick, plan
from service.engine.ticks import Ran
from service.errors import ModelFailure
from service.observability.metrics import EngineMetrics

# Useful and padded steps of a tick, and the useful ones of each row; None: one each.
_Steps = tuple[int, int, NDArray[np.int64] | None]


class Engine(EngineCore):
    """Runs rows of one model, any number of lengths side by side, a few time steps at a time.

    Args:
        name: name of the model, for error texts.
        cell: runs chunks.
        shape: widths of its tensors.
        limits: slots, chunk, queue.
        metrics: counts ticks, rows and tokens.
        clock: returns monotonic seconds.
        number: index of the engine in its group.
        decoding: end tokens, and what runs step ticks of several steps.
    """

    def __init__(
        self,
        name: str,
        cell: Cell,
        shape: Shape,
        limits: Limits,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
        number: int = 0,
        decoding: Decoding = PLAIN,
    ) -> None:
        self._active = ActiveRows(cell, shape, limits, decoding)
        self._stalled: set[Row] = set()  # suspended until their readers catch up
        facts = Facts(number, prefilling=self._active.prefill.held)
        estimator = Estimator(limits.steps_per_second, limits.overhead)
        super().__init__(name, limits, metrics, clock, facts, FairQueue(), estimator)

    def _advance(self, started: float) -> Active:
        """Seat rows and run a tick."""
        self._seat_rows(started)
        active = self._active
        tick = active.next_tick()
        if tick is not None:
            self._run(tick, started)
        return Active(len(active), len(active.prefill), active.prefill.steps_left)

    def _abandon(self) -> list[Row]:
        for row in self._active.rows:
            with suppress(Exception):  # the pools may be in any state
                if not row.is_over:
                    self._hand_over(row)
        rows = [*self._active.rows, *self._stalled]
        self._stalled.clear()
        return rows

    def _resume(self, row: Row) -> None:
        if row in self._stalled:
            self._stalled.remove(row)
            self._queue.append_first(row)

    def _seat_rows(self, started: float) -> None:
        """Carry out the scheduler's plan: one row at least, the rest as far as the budget goes."""
        if not self._queue:
            return
        admit, preempt = plan(self._queue, self._active.occupancy())
        for row in admit:
            self._admit(row)
            if self._is_over_budget(started):
                return
        for victim, successor in preempt:
            self._preempt(victim)
            self._admit(successor)
            if self._is_over_budget(started):
                return

    def _admit(self, row: Row) -> None:
        self._queue.take(row)
        if not row.has_begun:
            self._begin(row, self.clock())
        try:
            is_hit = self._active.admit(row)
        except Exception as error:
            self._end_faulty(row, error)
        else:
            self._metrics.prompt_cache_hits.inc(is_hit)

    def _preempt(self, row: Row) -> None:
        """Suspend a row for another client's and put it at the end of its client's line."""
        self._hand_over(row)
        if row in self._active and self._suspend(row):  # no last token, no slow reader
            self._metrics.paused.inc()
            self._queue.append(row)

    def _suspend(self, row: Row) -> bool:
        """Take a row's slot and keep its values; return whether it goes on, False where that raises."""
        try:
            self._active.suspend(row)
        except Exception as error:
            self._end_faulty(row, error)
            return False
        return True

    def _run(self, tick: Tick, started: float) -> None:
        """Run a tick; where the runtime fails, every row of it ends."""
        chunks, steps = self._active.prefill, self._active.decode
        pool, run = (chunks.pool, self._run_chunk) if tick is Tick.CHUNK else (steps.pool, self._run_step)
        count, recorder = len(pool), self.recorder
        if recorder is not None:
            recorder.begin(tick.value, pool.rows, is_decode=tick is Tick.STEP)
        try:
            useful, padded, lengths = run()
        except ModelFailure as failure:
            for row in list(pool.rows):
                self._end(row, failure)
            return
        now = self.clock()
        self._metrics.ticked(tick.value, now - started, count, useful, padded)
        if recorder is not None:
            recorder.end(started, now, Ran(useful, padded, lengths), len(self._queue))
        computed = useful + padded if tick is Tick.CHUNK else 0
        self.estimator.add_tick(count, computed, started, now, len(chunks) > 0)
        self.estimator.measure_ends(now)

    def _run_chunk(self) -> _Steps:
        """Run a few steps of every row with prefill steps left.

        The state of the first generating row that ends is cached, those of the others as far as the budget
        goes: a machine that is slow or busy caches too.
        """
        result = self._active.prefill.run()
        ended, keeps = self.clock(), True
        for row, answer in result.finished:
            if row.generates:
                self._start_decoding(row, ended, keeps)
                keeps = not self._is_over_budget(ended)
            else:
                self._answer(row, answer, ended)
        for row, error in result.failed.items():
            self._end_faulty(row, error)
        return result.useful, result.padded, result.lengths

    def _answer(self, row: Row, answer: Any, ended: float) -> None:
        """End a row that a chunk tick has finished."""
        super()._answer(row, answer, ended)
        self._active.leave_prefill(row)

    def _start_decoding(self, row: Row, ended: float, keeps: bool) -> None:
        """Let a row generate whose prompt has been run; cache its state where `keeps` says so."""
        try:
            state = self._active.start_decoding(row)
            row.times.prefilled_at = ended
            if (prompt := prompt_of(row.request)) is not None and keeps:
                self._active.prompts.keep(prompt, state, row.request.cache_scope)
                self._metrics.prompt_cache_bytes.set(self._active.prompts.size_bytes)
        except Exception as error:
            self._end_faulty(row, error)

    def _run_step(self) -> _Steps:
        """Run a step tick of every generating row."""
        decode = self._active.decode
        due, failed, tokens, unused, counts = decode.run(is_single=self._active.is_filling(len(self._queue)))
        self._metrics.tokens_generated.inc(tokens)
        rows = decode.pool.rows
        for row in (
            rows.copy() if decode.is_write_due(self.clock()) else [rows[index] for index in due.tolist()]
        ):
            if row not in failed:
                self._hand_over(row)
        for row, error in failed.items():
            self._end_faulty(row, error)
        return tokens, unused, counts

    def _hand_over(self, row: Row) -> None:
        """Make an output of the tokens that a row holds; the last ones end it, a slow reader stalls it."""
        decode = self._active.decode
        if row not in decode.pool:
            return
        is_first = decode.is_first(row)
        try:
            tokens = decode.take(row)
        except Exception as error:
            self._end_faulty(row, error)
            return
        if tokens is None:
            return
        if is_first:
            self._metrics.first_token_seconds.observe(self.clock() - row.times.submitted_at)
        self._outputs.append((row, tokens))
        if tokens.is_last:
            self._end(row, None)
        elif row.receiver.backlog >= row.receiver.max_backlog and self._suspend(row):
            self._stalled.add(row)

    def _end(self, row: Row, output: Any) -> None:
        """End a row with its final output or error; None: it has been handed over, or nobody reads it."""
        if isinstance(output, Exception):
            self._hand_over(row)  # the tokens that it holds come before the error
        super()._end(row, output)

    def _release(self, row: Row) -> None:
        if row in self._active:
            self._active.leave(row)
        elif row in self._stalled:
            self._stalled.remove(row)
        elif row in self._queue:
            self._queue.remove(row)

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, rows and queue agree."""
        super().check_integrity()
        self._active.check_integrity()
        assert not any(row.is_over for row in self._stalled), "a row that is over is stalled"
