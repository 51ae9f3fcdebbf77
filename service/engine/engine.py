"""The engine's turn: drain the inbox, expire deadlines, seat rows, run a tick, return the outputs.

Everything here belongs to one owner, the driver that calls `run_turn`. Other threads put messages into
`inbox` and read the numbers of `facts` and `estimator`, nothing else.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from service.engine.active import ActiveRows
from service.engine.cell import Cell, Shape
from service.engine.deadlines import Deadlines
from service.engine.estimator import Estimator
from service.engine.inbox import Cancel, Evict, Inbox, Message, Resume, Submit
from service.engine.limits import Limits
from service.engine.prompt_cache import prompt_of
from service.engine.queue import FairQueue
from service.engine.request import Output, Row
from service.engine.scheduler import Tick, plan
from service.engine.slots import Held
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics

_log = structlog.get_logger(__name__)

# An idle engine looks at its deadlines at least so often: a wait for years overflows a thread's timer.
_MAX_IDLE_S = 3600.0


@dataclass(slots=True)
class Facts:
    """Numbers that any thread may read; the engine alone writes them.

    Attributes:
        number: index of the engine in its group.
        num_active: rows that hold a slot.
        num_waiting: rows in the queue.
        num_clients: clients with rows, at least: those in the queue, or those that prefill.
        waiting_steps: prefill steps of the rows in the queue.
        num_prefilling: active rows with prefill steps left.
        prefill_steps: steps that those have left.
        prefilling: those rows by client.
        num_left: rows that were admitted for the first time, or ended before; less evicted ones.
        has_failed: the engine has stopped on an error of its own.
    """

    number: int = 0
    num_active: int = 0
    num_waiting: int = 0
    num_clients: int = 0
    waiting_steps: int = 0
    num_prefilling: int = 0
    prefill_steps: int = 0
    num_left: int = 0
    prefilling: Held = field(default_factory=Held)
    has_failed: bool = False


class Turn(NamedTuple):
    """The result of a turn: whether there is more to do at once, and the outputs to deliver, in order."""

    is_busy: bool
    outputs: list[Output]


class Engine:
    """Runs rows of one model, any number of lengths side by side.

    Args:
        name: name of the model, for error texts.
        cell: runs chunks.
        shape: widths of its tensors.
        limits: slots, chunk, queue.
        metrics: counts ticks, rows and tokens.
        clock: returns monotonic seconds.
        number: index of the engine in its group.
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
    ) -> None:
        self.name = name
        self.limits = limits
        self.clock = clock
        self.inbox = Inbox()
        self.estimator = Estimator(limits.steps_per_second, limits.overhead)
        self._metrics = metrics
        self._active = ActiveRows(cell, shape, limits)
        self.facts = Facts(number, prefilling=self._active.prefill.held)
        self._queue = FairQueue()
        self._stalled: set[Row] = set()  # suspended until their readers catch up
        self._deadlines = Deadlines()
        self._outputs: list[Output] = []  # of the current turn

    def run_turn(self) -> Turn:
        """Run one turn.

        Raises:
            Exception: a fault of the engine itself: no row can be trusted any more, and `fail` ends them all.
        """
        started = self.clock()
        self._drain_inbox(started)
        self._expire(started)
        self._seat_rows(started)
        tick = self._active.next_tick()
        if tick is not None:
            self._run(tick, started)
        is_busy = bool(self._active or self._queue or self.inbox)
        if not is_busy:
            self.estimator.reset()
        self._publish()
        outputs, self._outputs = self._outputs, []  # an idle engine keeps no row that is over
        return Turn(is_busy, outputs)

    def idle_s(self) -> float | None:
        """Return the seconds until the next deadline, None where there is none: an idle engine may sleep."""
        deadline = self._deadlines.next()
        return None if deadline is None else min(_MAX_IDLE_S, max(0.0, deadline - self.clock()))

    def fail(self) -> list[Output]:
        """Refuse whatever comes from now on and end every row; return their outputs.

        Called again, it ends what was submitted before callers could see that the engine has failed.
        """
        self.facts.has_failed = True
        for row in self._active.rows:
            with suppress(Exception):  # the pools may be in any state
                if not row.is_over:
                    self._hand_over(row)
        rows = [*self._active.rows, *self._queue.take_all(), *self._stalled]
        self._stalled.clear()
        while (message := self.inbox.take()) is not None:
            if isinstance(message, Submit):
                rows += message.rows
            elif isinstance(message, Evict):
                self._settle(message)
        for row in rows:
            self._end_failed(row)
        self._deadlines = Deadlines()
        self._publish_failure()
        outputs, self._outputs = self._outputs, []
        return outputs

    def _end_failed(self, row: Row) -> None:
        """End a row of a failed engine: the pools are left as they are."""
        if row.is_over:
            return
        row.is_over, row.times.ended_at = True, self.clock()
        if not row.has_begun:
            self._leave_queue(row)
        self._deadlines.discard(row)
        self._outputs.append((row, self.failure()))

    def _publish_failure(self) -> None:
        """Write the numbers of an engine that holds no rows any more."""
        facts = self.facts
        facts.num_active = facts.num_waiting = facts.num_clients = facts.waiting_steps = 0
        facts.num_prefilling = facts.prefill_steps = 0
        self._metrics.active_sequences.set(0)
        self._metrics.waiting_sequences.set(0)

    def failure(self) -> ModelFailure:
        """Return what the rows of a failed engine end with."""
        return ModelFailure(
            f"model {self.name}: its engine has stopped on an error; the server's log has the trace"
        )

    def _is_over_budget(self, started: float) -> bool:
        return self.clock() - started > self.limits.budget_s

    def _drain_inbox(self, started: float) -> None:
        """Do what the messages say: at least one of them, the others as far as the budget goes."""
        while (message := self.inbox.take()) is not None:
            self._handle(message)
            if self._is_over_budget(started):
                break

    def _handle(self, message: Message) -> None:
        match message:
            case Submit(rows):
                for row in rows:
                    self._queue.append(row)
                    self._deadlines.add(row)
            case Cancel(rows):
                for row in rows:
                    if not row.is_over:
                        self._metrics.cancelled.inc()
                        self._end(row, None)
            case Resume(row):
                if row in self._stalled:
                    self._stalled.remove(row)
                    self._queue.append_first(row)
            case Evict():
                self._evict(message)

    def _evict(self, message: Evict) -> None:
        """End the newest waiting rows of a client; the callers' side has counted all of them as gone."""
        rows = self._queue.newest(message.client, message.num_rows)
        for row in rows:
            self._end(
                row,
                Overloaded(
                    f"model {self.name}: the queue is full, clients with fewer waiting come first",
                    message.retry_after_s,
                ),
            )
        self._settle(message)

    def _settle(self, message: Evict) -> None:
        """Take back one of two counts: rows that callers evict leave the queue for the engine, too.

        Those that could not be evicted had been admitted, or had ended, and so were counted twice as well.
        """
        message.account.left[self.facts.number] -= message.num_rows
        self.facts.num_left -= message.num_rows

    def _expire(self, started: float) -> None:
        for row in self._deadlines.take_expired(started):
            self._end(
                row,
                DeadlineExceeded(f"model {self.name}: the deadline passed before the answer was there"),
            )
            if self._is_over_budget(started):
                break

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
            self._leave_queue(row)
            row.has_begun, row.times.admitted_at = True, self.clock()
            self._metrics.queue_seconds.observe(row.times.admitted_at - row.times.submitted_at)
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

    def _leave_queue(self, row: Row) -> None:
        """Count a row that waits no longer for its first admission."""
        self.facts.num_left += 1
        if row.account is not None:
            row.account.left[self.facts.number] += 1
            row.account.left_steps[self.facts.number] += row.prefill_steps

    def _run(self, tick: Tick, started: float) -> None:
        """Run a tick; where the runtime fails, every row of it ends."""
        chunks, steps = self._active.prefill, self._active.decode
        pool, run = (chunks.pool, self._run_chunk) if tick is Tick.CHUNK else (steps.pool, self._run_step)
        count = len(pool)
        try:
            useful, padded = run()
        except ModelFailure as failure:
            for row in list(pool.rows):
                self._end(row, failure)
            return
        now = self.clock()
        self._metrics.ticked(tick.value, now - started, count, useful, padded)
        computed = useful + padded if tick is Tick.CHUNK else 0
        self.estimator.add_tick(count, computed, started, now, len(chunks) > 0)
        self.estimator.measure_ends(now)

    def _run_chunk(self) -> tuple[int, int]:
        """Run a few steps of every row with prefill steps left; return useful and padded steps."""
        result = self._active.prefill.run()
        ended = self.clock()
        for row, answer in result.finished:
            if row.generates:
                self._start_decoding(row, ended)
            else:
                self._answer(row, answer, ended)
        for row, error in result.failed.items():
            self._end_faulty(row, error)
        return result.useful, result.padded

    def _answer(self, row: Row, answer: Any, ended: float) -> None:
        """End a row that a chunk tick has finished, as `_end` does, which would look for it everywhere."""
        row.is_over, row.times.ended_at = True, ended
        self._outputs.append((row, answer))  # first: a row that is over has its output, whatever raises next
        self._active.leave_prefill(row)
        self._deadlines.discard(row)
        self.estimator.add_end()

    def _start_decoding(self, row: Row, ended: float) -> None:
        """Let a row generate whose prompt has been run; cache its state while the budget lasts."""
        try:
            state = self._active.start_decoding(row)
            row.times.prefilled_at = ended
            if (prompt := prompt_of(row.request)) is not None and not self._is_over_budget(ended):
                self._active.prompts.keep(prompt, state, row.request.cache_scope)
                self._metrics.prompt_cache_bytes.set(self._active.prompts.size_bytes)
        except Exception as error:
            self._end_faulty(row, error)

    def _run_step(self) -> tuple[int, int]:
        """Run one step of every generating row; return useful and padded steps."""
        decode = self._active.decode
        count = len(decode)
        due, failed = decode.run()
        self._metrics.tokens_generated.inc(count)
        rows = decode.pool.rows
        for row in (
            rows.copy() if decode.is_write_due(self.clock()) else [rows[index] for index in due.tolist()]
        ):
            if row not in failed:
                self._hand_over(row)
        for row, error in failed.items():
            self._end_faulty(row, error)
        return count, 0

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

    def _end_faulty(self, row: Row, error: Exception) -> None:
        """End one row whose own data raised; the others go on."""
        _log.error("request failed in the engine", model=self.name, exc_info=error)
        self._end(
            row,
            ModelFailure(
                f"model {self.name}: the request failed in the engine; the server's log has the trace"
            ),
        )

    def _end(self, row: Row, output: Any) -> None:
        """End a row with its final output or error; None: it has been handed over, or nobody reads it."""
        if isinstance(output, Exception):
            self._hand_over(row)  # the tokens that it holds come before the error
        if row.is_over:
            return
        row.is_over, row.times.ended_at = True, self.clock()
        if output is not None:
            self._outputs.append((row, output))
        if row in self._active:
            self._active.leave(row)
        elif row in self._stalled:
            self._stalled.remove(row)
        elif row in self._queue:
            self._queue.remove(row)
        if not row.has_begun:
            self._leave_queue(row)
        self._deadlines.discard(row)
        self.estimator.add_end()

    def _publish(self) -> None:
        """Write the numbers that other threads read."""
        facts, active = self.facts, self._active
        facts.num_active, facts.num_waiting = len(active), len(self._queue)
        facts.num_clients = max(len(self._queue.clients), len(facts.prefilling.rows))
        facts.waiting_steps = self._queue.steps
        facts.num_prefilling, facts.prefill_steps = len(active.prefill), active.prefill.steps_left
        self._metrics.active_sequences.set(facts.num_active)
        self._metrics.waiting_sequences.set(facts.num_waiting)

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, rows and queue agree."""
        self._active.check_integrity()
        self._queue.check_integrity()
        assert not any(row.is_over for row in self._stalled), "a row that is over is stalled"
