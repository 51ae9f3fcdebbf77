"""The loop: take in, choose, run, advance, deliver.

`Engine.tick` is one turn and can be driven by hand; `Engine.start` runs it in a thread of its own. Sequences come in by `submit` and leave early by
`cancel`, from any thread; results leave through `post`, one call a tick.
"""

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import structlog

from service.engine.cell import Cell, Shape
from service.engine.decode import Decode, first_row
from service.engine.prefill import Prefill
from service.engine.prompts import Prompts
from service.engine.scheduler import Scheduler, Tick
from service.engine.sequence import Goal, Post, Result, Sequence
from service.engine.signal import Signal, let_others_run
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from service.metrics import EngineMetrics

_log = structlog.get_logger(__name__)

_RETRY_LEAST_S, _RETRY_MOST_S = 0.02, 10.0
_SMOOTHING = 0.05
_MOST_STALE = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an engine takes on.

    Attributes:
        slots: sequences active side by side.
        chunk: most time steps a chunk tick.
        max_waiting: sequences that may wait for a slot.
        chunk_rows: most sequences in a chunk tick; 0: as many as slots.
        overhead: a chunk tick's fixed cost, in steps of one row.
        gather_s: shortest time between two lumps of a stream's tokens, after the first.
        gather_row_s: the same for each generating row: with many streams their lumps grow, so that handing them over takes a bounded share of time.
        prompt_cache_bytes: kept states of prompts.
    """

    slots: int
    chunk: int
    max_waiting: int
    chunk_rows: int = 0
    overhead: float = 8.0
    gather_s: float = 0.0
    gather_row_s: float = 0.0
    prompt_cache_bytes: int = 0


class Engine:
    """Runs sequences of one model, any number of lengths side by side.

    Args:
        name: of the model, for its thread and error texts.
        cell: runs chunks.
        shape: of its tensors.
        limits: slots, chunk, queue.
        post: takes each tick's results; called in the engine's thread, must not block.
        metrics: where to count.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        cell: Cell,
        shape: Shape,
        limits: Limits,
        post: Post,
        metrics: EngineMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.limits = limits
        self._post = post
        self._metrics = metrics
        self._clock = clock
        self._scheduler = Scheduler(limits.slots)
        self._prefill = Prefill(cell, shape, limits.chunk_rows or limits.slots, limits.chunk, limits.overhead)
        self._decode = Decode(cell, shape, limits.slots)
        self._prompts = Prompts(limits.prompt_cache_bytes)
        self._parked: set[Sequence] = set()
        self._results: list[Result] = []  # of the current tick
        self._gathered_at = 0.0
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._tie_breaker = count()
        self._lock = threading.Lock()
        self._arrived: list[Sequence] = []
        self._left: list[Sequence] = []
        self.num_waiting = 0
        self._signal = Signal()
        self._is_stopping = False
        self.has_failed = False
        self._thread: threading.Thread | None = None
        self._seconds_per_sequence = 0.0
        self._last_end: float | None = None
        self._num_ended = 0  # since then

    # From any thread.

    def submit(self, sequences: list[Sequence]) -> None:
        """Put sequences into the queue, all or none.

        Raises:
            Overloaded: they do not fit.
            ModelFailure: the engine has stopped on an error of its own.
        """
        with self._lock:
            if self.has_failed:
                raise self._failure()
            if self.num_waiting + len(sequences) > self.limits.max_waiting:
                found = f"{self.num_waiting} and {len(sequences)} more"
                message = f"model {self.name}: expected at most {self.limits.max_waiting} waiting sequences, found {found}"
                raise Overloaded(message, self.retry_after_s())
            self.num_waiting += len(sequences)
            self._arrived.extend(sequences)
        self.wake()

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left: rows are free at the next tick. Those already over are passed by."""
        leaving = [sequence for sequence in sequences if not sequence.is_over]
        if leaving:
            with self._lock:
                self._left.extend(leaving)
            self.wake()

    def wake(self) -> None:
        """Look again: something has come, or a slow reader has caught up."""
        self._signal.give()

    def start(self) -> None:
        """Run in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name=f"engine-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current tick."""
        self._is_stopping = True
        self.wake()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._signal.clear()
                if self._arrived and not len(self._decode):
                    let_others_run()
                if not self.tick():
                    self._signal.wait(self._idle_s())
        except Exception:
            # A tick broke off half-way: no row can be trusted. Nobody is left without an answer, and liveness tells the operator.
            _log.exception("engine stopped", model=self.name)
            self._give_up()

    def _give_up(self) -> None:
        with self._lock:
            self.has_failed = True
            queued = [*self._arrived, *self._scheduler.take_all(), *self._prompts.followers()]
        for sequence in list(self._decode.pool.sequences):
            self._hand_over(sequence)
        held = [*queued, *self._prefill.pool.sequences, *self._decode.pool.sequences, *self._parked]
        self._post([*self._results, *((sequence, self._failure()) for sequence in held if not sequence.is_over)])

    def _failure(self) -> ModelFailure:
        return ModelFailure(f"model {self.name}: its engine has stopped on an error; the server's log has the trace")

    def _idle_s(self) -> float | None:
        """How long nothing can happen: until the next deadline of a parked sequence, or for ever."""
        return max(0.0, self._deadlines[0][0] - self._clock()) if self._deadlines else None

    def retry_after_s(self) -> float:
        """When a caller who was refused should try again."""
        return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, self._seconds_per_sequence * self.num_waiting))

    # In the engine's thread.

    def tick(self) -> bool:
        """One turn. Returns whether anything ran."""
        self._results = []
        started = self._clock()
        self._take_in(started)
        tick = self._scheduler.choose(len(self._prefill), len(self._decode))
        if tick is None:
            self._last_end = None
        else:
            pool, run = (self._prefill.pool, self._run_chunk) if tick is Tick.CHUNK else (self._decode.pool, self._run_step)
            rows = len(pool)
            try:
                useful, padded = run()
            except ModelFailure as failure:
                for sequence in list(pool.sequences):
                    self._end(sequence, failure)
            else:
                now = self._clock()
                self._metrics.ticked(tick.value, now - started, rows, useful, padded)
                self._measure_pace(now)
        if self._results:
            self._post(self._results)
        return tick is not None

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, rows and queue agree."""
        self._scheduler.check_integrity(len(self._prefill), len(self._decode))
        self._prefill.pool.check_integrity()
        self._decode.pool.check_integrity()
        assert self.num_waiting == len(self._arrived) + self._scheduler.waiting + self._prompts.num_following

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return self._scheduler.active

    def _take_in(self, now: float) -> None:
        """Arrivals join the line, those who left and those out of time go, free slots are filled."""
        if self._arrived or self._left:
            self._take_messages()
        if self._deadlines and self._deadlines[0][0] <= now:
            self._end_late(now)
        if self._parked:
            for sequence in [one for one in self._parked if one.receiver.backlog < one.receiver.most_backlog]:
                self._parked.remove(sequence)
                self._scheduler.enqueue_first(sequence)
        while (admitted := self._scheduler.admit(len(self._prefill) < self._prefill.pool.capacity)) is not None:
            self._seat(admitted, now)
        with self._lock:
            self.num_waiting = len(self._arrived) + self._scheduler.waiting + self._prompts.num_following
        self._metrics.active_sequences.set(self._scheduler.active)
        self._metrics.waiting_sequences.set(self.num_waiting)

    def _take_messages(self) -> None:
        """What other threads have said since the last tick."""
        with self._lock:
            arrived, self._arrived = self._arrived, []
            left, self._left = self._left, []
            for sequence in arrived:
                self._scheduler.enqueue(sequence)
        for sequence in arrived:
            if sequence.deadline is not None:
                heapq.heappush(self._deadlines, (sequence.deadline, next(self._tie_breaker), sequence))
        if len(self._deadlines) > _MOST_STALE + 2 * (self._scheduler.active + self.num_waiting + len(self._parked)):
            # Behind one early deadline, those that are over would be kept, inputs and all, until it passes.
            self._deadlines = [entry for entry in self._deadlines if not entry[2].is_over]
            heapq.heapify(self._deadlines)
        for sequence in left:
            if not sequence.is_over:
                self._metrics.cancelled.inc()
                self._end(sequence, None)
        if left:
            self._scheduler.drop_over()

    def _end_late(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, sequence = heapq.heappop(self._deadlines)
            if not sequence.is_over:
                self._end(sequence, DeadlineExceeded(f"model {self.name}: the deadline passed before the answer was there"))
        self._scheduler.drop_over()

    def _seat(self, sequence: Sequence, now: float) -> None:
        """Give an admitted sequence its row, where it is furthest on."""
        if sequence.parked is not None:
            self._decode.join(sequence, sequence.parked)
            sequence.parked = None
            return
        self._metrics.queue_seconds.observe(now - sequence.submitted_at)
        if sequence.goal is not Goal.GENERATE:
            self._prefill.join(sequence, 0, sequence.state)
        elif not sequence.prefill_steps:
            self._decode.join(sequence, first_row(sequence, sequence.state))
        else:
            self._seat_prompt(sequence)

    def _seat_prompt(self, sequence: Sequence) -> None:
        """A prompt starts where it is known, follows the one that is being run, or is run."""
        known = self._prompts.find(sequence)
        if known is not None and known.steps == sequence.prefill_steps:
            self._metrics.prompt_cache_hits.inc()
            self._decode.join(sequence, first_row(sequence, known.state))
        elif self._prompts.follow(sequence):
            self._metrics.prompt_cache_hits.inc()
            self._scheduler.release()
        else:
            self._metrics.prompt_cache_hits.inc(known is not None)
            self._prefill.join(sequence, *(known or (0, sequence.state)))
            self._prompts.lead(sequence)

    def _end(self, sequence: Sequence, result: Any) -> None:
        """A sequence is over; `result` is its last word, None where nobody listens any more or it has been said."""
        if isinstance(result, Exception):
            self._hand_over(sequence)
        sequence.is_over = True
        for rows in (self._prefill, self._decode):
            if sequence in rows.pool:
                rows.leave(sequence)
                self._scheduler.release()
        self._parked.discard(sequence)
        for orphan in reversed(self._prompts.end(sequence)):
            self._scheduler.enqueue_first(orphan)
        if result is not None:
            self._results.append((sequence, result))
        self._num_ended += 1

    def _answer(self, sequence: Sequence, result: Any) -> None:
        """`_end` of a row that a chunk tick has finished: most sequences end here, and what they cannot have is not looked for."""
        sequence.is_over = True
        self._prefill.leave(sequence)
        self._scheduler.release()
        self._results.append((sequence, result))
        self._num_ended += 1

    def _measure_pace(self, now: float) -> None:
        """Seconds from one sequence's end to the next, while there is work."""
        if self._num_ended:
            if self._last_end is not None:
                pace = (now - self._last_end) / self._num_ended
                self._seconds_per_sequence += min(1.0, _SMOOTHING * self._num_ended) * (pace - self._seconds_per_sequence)
            self._last_end, self._num_ended = now, 0

    def _run_chunk(self) -> tuple[int, int]:
        """A few steps of every row with input left. Returns useful and padded steps."""
        ran = self._prefill.run()
        for sequence, answer in ran.finished:
            if sequence.goal is Goal.GENERATE:
                self._go_on(sequence)
            else:
                self._answer(sequence, answer)
        return ran.useful, ran.padded

    def _go_on(self, sequence: Sequence) -> None:
        """A prompt has been run: its row goes from prefill to decode, and so do those who waited for it."""
        state = self._prefill.pool.state_of(sequence)
        self._prefill.leave(sequence)
        self._decode.join(sequence, first_row(sequence, state))
        for follower in reversed(self._prompts.finish(sequence, state)):
            follower.parked = first_row(follower, state)
            self._scheduler.enqueue_first(follower)

    def _run_step(self) -> tuple[int, int]:
        """One step of every generating row. Returns useful and padded steps."""
        decode = self._decode
        rows = len(decode)
        due = decode.run()
        self._metrics.tokens_generated.inc(rows)
        now = self._clock()
        if now - self._gathered_at >= self.limits.gather_s + rows * self.limits.gather_row_s:
            self._gathered_at = now
            ready = list(decode.pool.sequences)
        else:
            ready = [decode.pool.sequences[row] for row in due.tolist()]
        for sequence in ready:
            self._hand_over(sequence)
        return rows, 0

    def _hand_over(self, sequence: Sequence) -> None:
        """The tokens that a row holds become a result; the last ones end it, and a row whose reader is slow is parked."""
        if sequence not in self._decode.pool:
            return
        is_first = self._decode.is_first(sequence)
        tokens = self._decode.take(sequence)
        if tokens is None:
            return
        if is_first:
            self._metrics.first_token_seconds.observe(self._clock() - sequence.submitted_at)
        self._results.append((sequence, tokens))
        if tokens.is_last:
            self._end(sequence, None)
        elif sequence.receiver.backlog >= sequence.receiver.most_backlog:
            sequence.parked = self._decode.park(sequence)
            self._scheduler.release()
            self._parked.add(sequence)
