"""The loop: take in, choose, run, advance, deliver.

`Engine.tick` is one turn and can be driven by hand; `Engine.start` runs it in a thread of its own. Sequences
come in by `submit` and leave early by `cancel`, from any thread; results leave through `post`, one call a
tick.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from service.engine.cell import Cell, Shape
from service.engine.deadlines import Deadlines
from service.engine.decode import Decode, first_row
from service.engine.fairness import longest_held
from service.engine.limits import Limits
from service.engine.pace import Load, Pace, ensure_in_time, steps_until_answer
from service.engine.prefill import Prefill
from service.engine.prompts import Prompts
from service.engine.room import Messages, Room, ensure_room
from service.engine.scheduler import Scheduler, Tick
from service.engine.sequence import Goal, Post, Result, Sequence
from service.engine.signal import Signal, let_others_run
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics

_log = structlog.get_logger(__name__)

_MOST_PAUSED = 4  # in one turn: each costs a copy of its state


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
        self._deadlines = Deadlines()
        self._turn = 0
        self._signal = Signal()
        self.room = Room(self._scheduler, lambda: self.wake())  # noqa: PLW0108
        self._is_stopping = False
        self.has_failed = False
        self._thread: threading.Thread | None = None
        self._pace = Pace(limits.steps_per_second, limits.overhead)
        self._num_ended = 0  # since the pace was told

    # From any thread.

    def submit(self, sequences: list[Sequence]) -> None:
        """Put sequences of one client into the queue, all or none.

        Raises:
            Overloaded: they do not fit, and nobody with more waiting can make room; or their deadline is too
                near.
            ModelFailure: the engine has stopped on an error of its own.
        """
        with self.room.lock:
            self.check(sequences)
            if self.room.num_waiting + len(sequences) > self.limits.max_waiting:
                ensure_room(self.name, [self.room], self.limits.max_waiting, sequences, self.retry_after_s)
            self.room.put(sequences)

    def check(self, sequences: list[Sequence]) -> None:
        """Refuse what cannot be answered, whether there is room or not.

        Raises:
            DeadlineTooNear: at the measured pace the answer would come after the deadline. One that has
                passed already ends at the next tick.
            ModelFailure: the engine has stopped on an error of its own.
        """
        if self.has_failed:
            raise self._failure()
        deadline = sequences[0].deadline
        if deadline is None or (left := deadline - self._clock()) <= 0:
            return
        ahead, steps = self.room.ahead_of(sequences[0].client)
        load = Load(
            ahead + len(self._prefill),
            steps + self._prefill.steps_left,
            self._prefill.pool.capacity,
            self._pace.usual_rows,
        )
        ensure_in_time(
            self.name,
            left,
            self._pace.seconds_for(
                steps_until_answer(sequences, load), not (self.active or self.num_waiting)
            ),
        )

    def put(self, sequences: list[Sequence]) -> None:
        """Put sequences into the queue, whatever waits there.

        Raises:
            ModelFailure: the engine has stopped on an error of its own.
        """
        with self.room.lock:
            if self.has_failed:
                raise self._failure()
            self.room.put(sequences)

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left: rows are free at the next tick. Those already over are passed by."""
        leaving = [sequence for sequence in sequences if not sequence.is_over]
        if leaving:
            self.room.cancel(leaving)

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
                if self.room.has_arrivals and not len(self._decode):
                    let_others_run()
                if not self.tick():
                    self._signal.wait(self._idle_s())
        except Exception:
            # A tick broke off half-way: no row can be trusted. Nobody is left without an answer, and liveness
            # tells the operator.
            _log.exception("engine stopped", model=self.name)
            self._give_up()

    def _give_up(self) -> None:
        with self.room.lock:
            self.has_failed = True
        queued = [*self.room.close(), *self._prompts.followers()]
        for sequence in list(self._decode.pool.sequences):
            self._hand_over(sequence)
        held = [*queued, *self._prefill.pool.sequences, *self._decode.pool.sequences, *self._parked]
        self._post(
            [*self._results, *((sequence, self._failure()) for sequence in held if not sequence.is_over)]
        )

    def _failure(self) -> ModelFailure:
        return ModelFailure(
            f"model {self.name}: its engine has stopped on an error; the server's log has the trace"
        )

    def _idle_s(self) -> float | None:
        """How long nothing can happen: until the next deadline of a parked sequence, or for ever."""
        return None if self._deadlines.next is None else max(0.0, self._deadlines.next - self._clock())

    def retry_after_s(self) -> float:
        """When a caller who was refused should try again."""
        return self._pace.retry_after_s(self.num_waiting)

    # In the engine's thread.

    def tick(self) -> bool:
        """One turn. Returns whether anything ran."""
        self._results = []
        started = self._clock()
        self._take_in(started)
        tick = self._scheduler.choose(len(self._prefill), len(self._decode))
        if tick is None:
            self._pace.idle()
        else:
            self._turn += 1
            pool, run = (
                (self._prefill.pool, self._run_chunk)
                if tick is Tick.CHUNK
                else (self._decode.pool, self._run_step)
            )
            rows = len(pool)
            try:
                useful, padded = run()
            except ModelFailure as failure:
                for sequence in list(pool.sequences):
                    self._end(sequence, failure)
            else:
                now = self._clock()
                self._metrics.ticked(tick.value, now - started, rows, useful, padded)
                self._pace.ran(
                    rows, useful + padded if tick is Tick.CHUNK else 0, started, now, len(self._prefill) > 0
                )
                if self._num_ended:
                    self._pace.ended(self._num_ended, now)
                    self._num_ended = 0
        if self._results:
            self._post(self._results)
        return tick is not None

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, rows and queue agree."""
        self._scheduler.check_integrity(len(self._prefill), len(self._decode))
        self._prefill.pool.check_integrity()
        self._decode.pool.check_integrity()
        assert self.num_waiting == self._scheduler.waiting + self._prompts.num_following

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a slot."""
        return self.room.num_waiting

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return self._scheduler.active

    def _take_in(self, now: float) -> None:
        """What others have said is done, those out of time go, free slots are filled, and taken ones where a
        client has too few.
        """
        if (messages := self.room.take_messages()) is not None:
            self._take_messages(messages)
        if self._deadlines.next is not None and self._deadlines.next <= now:
            self._end_late(now)
        if self._parked:
            ready = [one for one in self._parked if one.receiver.backlog < one.receiver.most_backlog]
            self._parked.difference_update(ready)
            self.room.put_first(ready)
        while (admitted := self.room.admit(self._can_prefill)) is not None:
            self._seat(admitted, now)
        # `submit` changes the lines that claims are decided from: both steps of a claim are one for every
        # other thread.
        with self.room.lock:
            if self._scheduler.is_contended:
                self._even_out(now)
        self.room.count(self._prompts.num_following)
        self._metrics.active_sequences.set(self._scheduler.active)
        self._metrics.waiting_sequences.set(self.num_waiting)

    @property
    def _can_prefill(self) -> bool:
        """Whether there is room for one more row with input left."""
        return len(self._prefill) < self._prefill.pool.capacity

    def _even_out(self, now: float) -> None:
        """A client with few rows gets some of those of the client with most."""
        for _ in range(_MOST_PAUSED):
            claim = self._scheduler.claim(self._prefill.pool.sequences, self._can_prefill)
            if claim is None or (
                claim.holder is not None and not self._pause_one_of(claim.holder, claim.wants_prefill)
            ):
                break
            self._seat(self.room.admit_from(claim.client), now)

    def _pause_one_of(self, client: str, in_prefill: bool) -> bool:
        """Take the row that a client has held longest, and put its sequence at the end of its line. Returns
        whether there was one.
        """
        pools = (self._prefill.pool,) if in_prefill else (self._prefill.pool, self._decode.pool)
        if (
            sequence := longest_held((one for pool in pools for one in pool.sequences), client, self._turn)
        ) is None:
            return False
        if sequence in self._decode.pool:
            self._hand_over(sequence)
            if sequence not in self._decode.pool:
                return True  # that was its last token, or its reader is slow
            sequence.parked = self._decode.park(sequence)
        else:
            # Those who wait for its prompt are not held up with it: the first of them runs it.
            self.room.put_first(self._prompts.end(sequence))
            sequence.paused = self._prefill.pause(sequence)
        self._scheduler.release(client)
        self._metrics.paused.inc()
        self.room.put_last(sequence)
        return True

    def _take_messages(self, messages: Messages) -> None:
        """What other threads have said since the last tick."""
        self._deadlines.add(messages.arrived, self._scheduler.active + self.num_waiting + len(self._parked))
        for sequence in messages.left:
            if not sequence.is_over:
                self._metrics.cancelled.inc()
                self._end(sequence, None)
        for sequence in messages.dropped:
            if not sequence.is_over:
                self._end(
                    sequence,
                    Overloaded(
                        f"model {self.name}: the queue is full, clients with fewer waiting come first",
                        self.retry_after_s(),
                    ),
                )
        if messages.left:
            self.room.drop_over()

    def _end_late(self, now: float) -> None:
        for sequence in self._deadlines.take_late(now):
            self._end(
                sequence,
                DeadlineExceeded(f"model {self.name}: the deadline passed before the answer was there"),
            )
        self.room.drop_over()

    def _seat(self, sequence: Sequence, now: float) -> None:
        """Give an admitted sequence its row, where it is furthest on."""
        sequence.seated_in = self._turn
        if sequence.parked is None and sequence.paused is None:
            self._metrics.queue_seconds.observe(now - sequence.submitted_at)
            sequence.seated_at = now
        if sequence.parked is not None:
            self._decode.join(sequence, sequence.parked)
            sequence.parked = None
        elif sequence.paused is not None:
            self._prefill.join(sequence, *sequence.paused)
            sequence.paused = None
        elif sequence.goal is not Goal.GENERATE:
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
            sequence.prefilled_at = sequence.seated_at
            self._decode.join(sequence, first_row(sequence, known.state))
        elif self._prompts.follow(sequence):
            self._metrics.prompt_cache_hits.inc()
            self._scheduler.release(sequence.client)
        else:
            self._metrics.prompt_cache_hits.inc(known is not None)
            self._prefill.join(sequence, *(known or (0, sequence.state)))
            self._prompts.lead(sequence)

    def _end(self, sequence: Sequence, result: Any) -> None:
        """A sequence is over; `result` is its last word, None where nobody listens any more or it has been
        said.
        """
        if isinstance(result, Exception):
            self._hand_over(sequence)
        sequence.is_over, sequence.ended_at = True, self._clock()
        for rows in (self._prefill, self._decode):
            if sequence in rows.pool:
                rows.leave(sequence)
                self._scheduler.release(sequence.client)
        self._parked.discard(sequence)
        self.room.put_first(self._prompts.end(sequence))
        if result is not None:
            self._results.append((sequence, result))
        self._num_ended += 1

    def _answer(self, sequence: Sequence, result: Any) -> None:
        """`_end` of a row that a chunk tick has finished: most sequences end here, and what they cannot have
        is not looked for.
        """
        sequence.is_over, sequence.ended_at = True, self._clock()
        self._prefill.leave(sequence)
        self._scheduler.release(sequence.client)
        self._results.append((sequence, result))
        self._num_ended += 1

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
        state, sequence.prefilled_at = self._prefill.pool.state_of(sequence), self._clock()
        self._prefill.leave(sequence)
        self._decode.join(sequence, first_row(sequence, state))
        followers = self._prompts.finish(sequence, state)
        for follower in followers:
            follower.parked, follower.prefilled_at = first_row(follower, state), sequence.prefilled_at
        self.room.put_first(followers)

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
        """The tokens that a row holds become a result; the last ones end it, and a row whose reader is slow
        is parked.
        """
        if sequence not in self._decode.pool:
            return
        is_first = self._decode.is_first(sequence)
        if (tokens := self._decode.take(sequence)) is None:
            return
        if is_first:
            self._metrics.first_token_seconds.observe(self._clock() - sequence.submitted_at)
        self._results.append((sequence, tokens))
        if tokens.is_last:
            self._end(sequence, None)
        elif sequence.receiver.backlog >= sequence.receiver.most_backlog:
            sequence.parked = self._decode.park(sequence)
            self._scheduler.release(sequence.client)
            self._parked.add(sequence)
