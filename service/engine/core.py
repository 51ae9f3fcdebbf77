"""The part that all engines share: drain the inbox, expire deadlines, end rows, publish numbers.

Everything here belongs to one owner, the driver that calls `run_turn`. Other threads put messages into
`inbox`, read the numbers of `facts` and `estimator`, and have ticks recorded by setting `recorder`, nothing
else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from service.engine.deadlines import Deadlines
from service.engine.estimator import Estimator
from service.engine.inbox import Cancel, Evict, Inbox, Message, Resume, Submit
from service.engine.limits import Limits
from service.engine.queue import FairQueue
from service.engine.request import Output, Row
from service.engine.slots import Held
from service.engine.ticks import TickRecorder
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


class Active(NamedTuple):
    """Numbers of the rows that hold slots.

    Attributes:
        num_rows: all of them.
        num_prefilling: those with prefill steps left.
        prefill_steps: steps that those have left.
    """

    num_rows: int
    num_prefilling: int
    prefill_steps: int


NOBODY = Active(0, 0, 0)


class EngineCore(ABC):
    """Runs rows of one model. What is run in a turn, and how, is a subclass's.

    Args:
        name: name of the model, for error texts.
        limits: slots, queue, budget.
        metrics: counts ticks and rows.
        clock: returns monotonic seconds.
        facts: numbers for other threads.
        queue: holds the waiting rows.
        estimator: measures throughput.

    Attributes:
        recorder: records the ticks; None: nobody watches. Callers set it.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        metrics: EngineMetrics,
        clock: Callable[[], float],
        facts: Facts,
        queue: FairQueue,
        estimator: Estimator,
    ) -> None:
        self.name = name
        self.limits = limits
        self.clock = clock
        self.inbox = Inbox()
        self.estimator = estimator
        self.facts = facts
        self.recorder: TickRecorder | None = None
        self._metrics = metrics
        self._queue = queue
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
        active = self._advance(started)
        is_busy = bool(active.num_rows or self._queue or self.inbox)
        if not is_busy:
            self.estimator.reset()
            self._forget_recorded()
        self._publish(active)
        outputs, self._outputs = self._outputs, []  # an idle engine keeps no row that is over
        return Turn(is_busy, outputs)

    def _forget_recorded(self) -> None:
        """Have the recorder keep no row that is over, where there is one."""
        recorder = self.recorder  # read once: callers set it meanwhile
        if recorder is not None:
            recorder.forget_rows()

    @abstractmethod
    def _advance(self, started: float) -> Active:
        """Run at most one tick; return the rows that hold slots after it.

        Args:
            started: seconds at the start of the turn, whose bookkeeping has a budget.
        """

    @abstractmethod
    def _release(self, row: Row) -> None:
        """Take a row that is over out of wherever it is."""

    @abstractmethod
    def _abandon(self) -> list[Row]:
        """Return the rows of a failed engine that do not wait in the queue; keep none of them."""

    @abstractmethod
    def _resume(self, row: Row) -> None:
        """Let a row go on that was suspended because its reader was slow."""

    def idle_s(self) -> float | None:
        """Return the seconds until the next deadline, None where there is none: an idle engine may sleep."""
        deadline = self._deadlines.next()
        return None if deadline is None else min(_MAX_IDLE_S, max(0.0, deadline - self.clock()))

    def fail(self) -> list[Output]:
        """Refuse whatever comes from now on and end every row; return their outputs.

        Called again, it ends what was submitted before callers could see that the engine has failed.
        """
        self.facts.has_failed = True
        rows = [*self._abandon(), *self._queue.take_all()]
        while (message := self.inbox.take()) is not None:
            if isinstance(message, Submit):
                rows += message.rows
            elif isinstance(message, Evict):
                self._settle(message)
        for row in rows:
            self._end_failed(row)
        self._forget_recorded()
        self._deadlines = Deadlines()
        self._publish(NOBODY)
        self.facts.num_clients = 0
        outputs, self._outputs = self._outputs, []
        return outputs

    def _end_failed(self, row: Row) -> None:
        """End a row of a failed engine: what holds it is left as it is."""
        if row.is_over:
            return
        row.is_over, row.times.ended_at = True, self.clock()
        if not row.has_begun:
            self._leave_queue(row)
        self._deadlines.discard(row)
        self._outputs.append((row, self.failure()))

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
                self._resume(row)
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

    def _begin(self, row: Row, now: float) -> None:
        """Count a row that is admitted for the first time."""
        self._leave_queue(row)
        row.has_begun, row.times.admitted_at = True, now
        self._metrics.queue_seconds.observe(now - row.times.submitted_at)

    def _leave_queue(self, row: Row) -> None:
        """Count a row that waits no longer for its first admission."""
        self.facts.num_left += 1
        if row.account is not None:
            row.account.left[self.facts.number] += 1
            row.account.left_steps[self.facts.number] += row.prefill_steps

    def _answer(self, row: Row, answer: Any, ended: float) -> None:
        """End a row that a tick has finished, as `_end` does, which would look for it everywhere."""
        row.is_over, row.times.ended_at = True, ended
        self._outputs.append((row, answer))  # first: a row that is over has its output, whatever raises next
        self._deadlines.discard(row)
        self.estimator.add_end()

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
        if row.is_over:
            return
        row.is_over, row.times.ended_at = True, self.clock()
        if output is not None:
            self._outputs.append((row, output))
        self._release(row)
        if not row.has_begun:
            self._leave_queue(row)
        self._deadlines.discard(row)
        self.estimator.add_end()

    def _publish(self, active: Active) -> None:
        """Write the numbers that other threads read."""
        facts, queue = self.facts, self._queue
        facts.num_active, facts.num_prefilling, facts.prefill_steps = active
        facts.num_waiting, facts.waiting_steps = len(queue), queue.steps
        facts.num_clients = max(len(queue.clients), len(facts.prefilling.rows))
        self._metrics.active_sequences.set(facts.num_active)
        self._metrics.waiting_sequences.set(facts.num_waiting)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the queue's counts and rows agree."""
        self._queue.check_integrity()
