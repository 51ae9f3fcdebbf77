"""The loop: take in, choose, run, sample, advance, deliver.

`Engine.tick` is one turn and can be driven by hand; `Engine.start` runs it in a thread of its own. Sequences come in by `submit` and leave early by
`cancel`, from any thread; results leave through `post`, one call a tick.
"""

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol

import numpy as np
import structlog

from service.engine.plan import plan_chunk
from service.engine.sampling import logprobs_of, sample
from service.engine.scheduler import Scheduler, Tick
from service.engine.sequence import Generated, Goal, Post, Result, Sequence
from service.engine.slots import Pool, generation_record
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from service.metrics import EngineMetrics
from service.runtime import Chunk

_log = structlog.get_logger(__name__)

_RETRY_LEAST_S, _RETRY_MOST_S = 0.02, 10.0
_SMOOTHING = 0.05
_MOST_STALE = 1000


class BoundChunk(Protocol):
    """A chunk that can be run again and again."""

    chunk: Chunk

    def run(self) -> None:
        """Compute `chunk.output` and `chunk.after`."""
        ...


class Cell(Protocol):
    """What the engine needs of a runtime; service.runtime.Runtime is one."""

    def bind(self, chunk: Chunk) -> BoundChunk:
        """Tie arrays to the graph."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of a cell's tensors.

    Attributes:
        features: values a time step; None: token ids.
        outputs: of the head.
        state: of each state tensor.
    """

    features: int | None
    outputs: int
    state: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an engine takes on.

    Attributes:
        slots: sequences computed side by side.
        chunk: most time steps a chunk tick.
        max_waiting: sequences that may wait for a slot.
    """

    slots: int
    chunk: int
    max_waiting: int


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
        self._cell = cell
        self._post = post
        self._metrics = metrics
        self._clock = clock
        self._scheduler = Scheduler(limits.slots)
        self._chunks = Pool(limits.slots, shape.state)
        self._steps = Pool(limits.slots, shape.state)
        self._parked: set[Sequence] = set()
        self._results: list[Result] = []  # of the current tick
        self._deadlines: list[tuple[float, int, Sequence]] = []
        self._tie_breaker = count()
        self._lock = threading.Lock()
        self._arrived: list[Sequence] = []
        self._left: list[Sequence] = []
        self._num_waiting = 0
        self._wake = threading.Event()
        self._is_stopping = False
        self.has_failed = False
        self._thread: threading.Thread | None = None
        self._seconds_per_sequence = 0.0
        self._last_end: float | None = None
        most_steps = limits.slots * limits.chunk
        # First axis flat, so that any (rows, steps) of a tick is a contiguous view.
        self._chunk_inputs = np.zeros(most_steps, np.int64) if shape.features is None else np.zeros((most_steps, shape.features), np.float32)
        self._step_inputs = np.zeros((limits.slots, 1), np.int64)
        self._ones = np.ones(limits.slots, np.int32)
        self._arange = np.arange(most_steps)
        self._outputs = np.empty((most_steps, shape.outputs), np.float32)
        self._step_bindings: dict[tuple[int, int], BoundChunk] = {}

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
            if self._num_waiting + len(sequences) > self.limits.max_waiting:
                found = f"{self._num_waiting} and {len(sequences)} more"
                message = f"model {self.name}: expected at most {self.limits.max_waiting} waiting sequences, found {found}"
                raise Overloaded(message, self._retry_after_s())
            self._num_waiting += len(sequences)
            self._arrived.extend(sequences)
        self._wake.set()

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left: rows are free at the next tick. Those already over are passed by."""
        leaving = [sequence for sequence in sequences if not sequence.is_over]
        if leaving:
            with self._lock:
                self._left.extend(leaving)
            self._wake.set()

    def wake(self) -> None:
        """Look again: a slow reader has caught up."""
        self._wake.set()

    def start(self) -> None:
        """Run in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name=f"engine-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current tick."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._wake.clear()
                if not self.tick():
                    self._wake.wait(self._idle_s())
        except Exception:
            # A tick broke off half-way: no row can be trusted. Nobody is left without an answer, and liveness tells the operator.
            _log.exception("engine stopped", model=self.name)
            self._give_up()

    def _give_up(self) -> None:
        with self._lock:
            self.has_failed = True
            held = [*self._arrived, *self._scheduler.take_all(), *self._chunks.sequences, *self._steps.sequences, *self._parked]
        self._post([*self._results, *((sequence, self._failure()) for sequence in held if not sequence.is_over)])

    def _failure(self) -> ModelFailure:
        return ModelFailure(f"model {self.name}: its engine has stopped on an error; the server's log has the trace")

    def _idle_s(self) -> float | None:
        """How long nothing can happen: until the next deadline of a parked sequence, or for ever."""
        return max(0.0, self._deadlines[0][0] - self._clock()) if self._deadlines else None

    def _retry_after_s(self) -> float:
        return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, self._seconds_per_sequence * self._num_waiting))

    # In the engine's thread.

    def tick(self) -> bool:
        """One turn. Returns whether anything ran."""
        results = self._results = []
        self._take_in(results)
        tick = self._scheduler.choose(len(self._chunks), len(self._steps))
        if tick is not None:
            started = self._clock()
            pool, run = (self._chunks, self._run_chunk) if tick is Tick.CHUNK else (self._steps, self._run_step)
            rows = len(pool)
            try:
                useful, padded = run(results)
            except ModelFailure as failure:
                for sequence in list(pool.sequences):
                    self._end(sequence, failure, results)
            else:
                self._metrics.ticked(tick.value, self._clock() - started, rows, useful, padded)
        else:
            self._last_end = None
        if results:
            self._post(results)
        return tick is not None

    def check_integrity(self) -> None:
        """Raise AssertionError unless slots, rows and queue agree."""
        self._scheduler.check_integrity(len(self._chunks), len(self._steps))
        self._chunks.check_integrity()
        self._steps.check_integrity()
        assert self._num_waiting == len(self._arrived) + self._scheduler.waiting

    @property
    def active(self) -> int:
        """Sequences that hold a slot."""
        return self._scheduler.active

    def _take_in(self, results: list[Result]) -> None:
        """Arrivals join the line, those who left and those out of time go, free slots are filled."""
        now = self._clock()
        with self._lock:
            arrived, self._arrived = self._arrived, []
            left, self._left = self._left, []
            for sequence in arrived:
                self._scheduler.enqueue(sequence)
        for sequence in arrived:
            if sequence.deadline is not None:
                heapq.heappush(self._deadlines, (sequence.deadline, next(self._tie_breaker), sequence))
        ended_any = False
        for sequence in left:
            if not sequence.is_over:
                self._metrics.cancelled.inc()
                self._end(sequence, None, results)
                ended_any = True
        if len(self._deadlines) > _MOST_STALE + 2 * (self._scheduler.active + self._scheduler.waiting + len(self._parked)):
            # Behind one early deadline, those that are over would be kept, inputs and all, until it passes.
            self._deadlines = [entry for entry in self._deadlines if not entry[2].is_over]
            heapq.heapify(self._deadlines)
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].is_over):
            _, _, sequence = heapq.heappop(self._deadlines)
            if not sequence.is_over:
                self._end(sequence, DeadlineExceeded(f"model {self.name}: the deadline passed before the answer was there"), results)
                ended_any = True
        if ended_any:
            self._scheduler.drop_over()
        for sequence in [parked for parked in self._parked if parked.receiver.backlog < parked.receiver.most_backlog]:
            self._parked.remove(sequence)
            self._scheduler.enqueue_first(sequence)
        for sequence in self._scheduler.admit():
            self._seat(sequence, now)
        with self._lock:
            self._num_waiting = len(self._arrived) + self._scheduler.waiting
        self._metrics.active_sequences.set(self._scheduler.active)
        self._metrics.waiting_sequences.set(self._scheduler.waiting)

    def _seat(self, sequence: Sequence, now: float) -> None:
        if sequence.parked is not None:
            self._steps.join(sequence, sequence.parked.state, sequence.parked.record)
            sequence.parked = None
            return
        self._metrics.queue_seconds.observe(now - sequence.submitted_at)
        if sequence.to_prefill:
            self._chunks.join(sequence)
        else:
            self._steps.join(sequence, record=generation_record(sequence))

    def _end(self, sequence: Sequence, result: Any, results: list[Result]) -> None:
        """A sequence is over; `result` is its last word, None where nobody listens any more."""
        sequence.is_over = True
        for pool in (self._chunks, self._steps):
            if sequence in pool:
                pool.leave(sequence)
                self._scheduler.release()
        self._parked.discard(sequence)
        if result is not None:
            results.append((sequence, result))
        now = self._clock()
        if self._last_end is not None:
            self._seconds_per_sequence += _SMOOTHING * (now - self._last_end - self._seconds_per_sequence)
        self._last_end = now

    def _run_chunk(self, results: list[Result]) -> tuple[int, int]:
        """Up to `chunk` steps of every row with input left. Returns useful and padded steps."""
        pool, rows = self._chunks, list(self._chunks.sequences)
        plan = plan_chunk(rows, self.limits.chunk, self._chunk_inputs)
        chunk = Chunk(
            plan.inputs,
            plan.lengths,
            [tensor[: len(rows)] for tensor in pool.front],
            plan.wanted,
            self._outputs[: len(plan.wanted)],
            [tensor[: len(rows)] for tensor in pool.back],
        )
        self._cell.bind(chunk).run()
        pool.flip()
        for sequence, length in zip(rows, plan.lengths.tolist(), strict=True):
            sequence.consumed += length
        for sequence, logprobs in plan.scored(chunk.output):
            sequence.pieces.append(logprobs)
        for sequence, output in plan.ended(chunk.output):
            self._end(sequence, output, results)
        self._move_on(rows, results)
        return plan.useful_steps, plan.inputs.shape[0] * plan.inputs.shape[1] - plan.useful_steps

    def _move_on(self, rows: list[Sequence], results: list[Result]) -> None:
        """Rows whose input has been run: a scored one is over, a generating one goes from prefill to decode."""
        for sequence in rows:
            if sequence.is_over or sequence.to_prefill:
                continue
            if sequence.goal is Goal.SCORE:
                self._end(sequence, np.concatenate(sequence.pieces), results)
            else:
                state = self._chunks.state_of(sequence)
                self._chunks.leave(sequence)
                self._steps.join(sequence, state, generation_record(sequence))

    def _run_step(self, results: list[Result]) -> tuple[int, int]:
        """One step of every generating row. Returns useful and padded steps."""
        pool, rows = self._steps, len(self._steps)
        records = pool.records[:rows]
        self._step_inputs[:rows, 0] = records["token"]
        binding = self._bind_step(rows)
        binding.run()
        pool.flip()
        logits = binding.chunk.output
        tokens = sample(logits, records["temperature"], records["top_k"], records["top_p"], records["key"], records["position"])
        logprobs = np.full(rows, np.nan, np.float32)
        if (asked := records["wants_logprobs"]).any():
            logprobs[asked] = logprobs_of(logits[asked], tokens[asked])
        records["token"] = tokens
        records["position"] += np.uint64(1)
        records["remaining"] -= 1
        self._metrics.tokens_generated.inc(rows)
        now = self._clock()
        is_last = (records["remaining"] == 0).tolist()
        for sequence, token, logprob, last in zip(list(pool.sequences), tokens.tolist(), logprobs.tolist(), is_last, strict=True):
            if sequence.consumed < len(sequence.inputs):  # its first token: the last input step has just been fed
                sequence.consumed = len(sequence.inputs)
                self._metrics.first_token_seconds.observe(now - sequence.submitted_at)
            generated = Generated(token, logprob, last)
            if last:
                self._end(sequence, generated, results)
                continue
            results.append((sequence, generated))
            if sequence.receiver.backlog >= sequence.receiver.most_backlog:
                sequence.parked = pool.park(sequence)
                self._scheduler.release()
                self._parked.add(sequence)
        return rows, 0

    def _bind_step(self, rows: int) -> BoundChunk:
        """A step's arrays are always the same ones, so each number of rows is bound once for either side of the pool."""
        key = (self._steps.parity, rows)
        if key not in self._step_bindings:
            chunk = Chunk(
                self._step_inputs[:rows],
                self._ones[:rows],
                [tensor[:rows] for tensor in self._steps.front],
                self._arange[:rows],
                self._outputs[:rows],
                [tensor[:rows] for tensor in self._steps.back],
            )
            self._step_bindings[key] = self._cell.bind(chunk)
        return self._step_bindings[key]
