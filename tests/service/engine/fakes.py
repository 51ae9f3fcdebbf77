"""Fakes for tests of the engine: a network of whole numbers whose every answer is known, and an engine that a
test drives by hand on a clock of its own. Nothing here needs onnxruntime.

The fake cell computes row by row, so the exact outputs of a row are what `expected` computes for it alone,
whoever else is in the batch.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Decoding, Generator, Shape, StepSize
from service.engine.core import EngineCore, Turn
from service.engine.driver import Driver, Kind, LoopDriver, ThreadDriver
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal, Output, Request, Row, TokenBatch
from service.engine.sampling import Floats, Sampling, Tokens, key_of, logprobs_of, options_of, pick
from service.engine.streaming import Submitter, deliver
from service.errors import ModelFailure
from service.observability.metrics import EngineMetrics
from service.observability.times import Times
from service.runtime import Chunk

VOCABULARY = 7
SHAPE = Shape(features=None, outputs=VOCABULARY, state=(1, 2))
# Small enough that every number stays exact in float32.
_MODULUS = 4093
# No test takes nearly as long; one that waits longer has failed.
PATIENCE_S = 20.0


class Generated(NamedTuple):
    """One token of a `TokenBatch`: its id, its log-probability (NaN when nobody asked), and whether it is the
    row's last.
    """

    token: int
    logprob: float
    is_last: bool


def unpacked(batch: TokenBatch) -> list[Generated]:
    """Split a batch into single tokens."""
    logprobs = batch.logprobs or [float("nan")] * len(batch.ids)
    last = len(batch.ids) - 1
    return [
        Generated(*one, batch.is_last and index == last)
        for index, one in enumerate(zip(batch.ids, logprobs, strict=True))
    ]


State = tuple[int, int, int]
START: State = (0, 0, 0)


def advance(state: State, token: int) -> State:
    """Return the fake network's state after one more token."""
    hidden, cell, steps = state
    hidden = (hidden * 31 + token * 17 + cell + 5) % _MODULUS
    return hidden, (cell * 7 + hidden) % _MODULUS, steps + 1


def logits_of(state: State) -> NDArray[np.float32]:
    """Return the outputs of the fake network's head, float32 (V,)."""
    hidden, cell, steps = state
    return np.array(
        [
            (hidden * (token + 3) + cell * (token * token + 1) + steps) % 101 / 25
            for token in range(VOCABULARY)
        ],
        np.float32,
    )


def sample(
    logits: NDArray[np.float32],
    temperature: Floats,
    top_k: Tokens,
    top_p: Floats,
    keys: NDArray[np.uint64],
    positions: NDArray[np.uint64],
) -> Tokens:
    """Call `pick` with options that serve once; the arguments are those of `pick` and `options_of`."""
    return pick(logits, options_of(temperature, top_k, top_p, logits.shape[1]), keys, positions)


class FakeCell:
    """Computes chunks with `advance` and `logits_of`, and checks what it is given.

    Args:
        failures: numbers of the runs, from 0, that fail.

    Attributes:
        is_faulty: raise what no runtime should.
        runs: rows and steps of every run so far.
        failed_rows: rows of the runs that have failed.
    """

    is_faulty = False

    def __init__(self, failures: Iterable[int] = ()) -> None:
        self.failures = frozenset(failures)
        self.runs: list[tuple[int, int]] = []
        self.failed_rows = 0

    def bind(self, chunk: Chunk) -> "FakeBound":
        return FakeBound(self, chunk)


class FakeBound:
    """Runs one chunk of the fake cell."""

    def __init__(self, cell: FakeCell, chunk: Chunk) -> None:
        self.cell = cell
        self.chunk = chunk

    def run(self) -> None:
        chunk = self.chunk
        _check_arrays(chunk)
        if self.cell.is_faulty:
            raise ZeroDivisionError("a fault in the cell")
        number = len(self.cell.runs)
        rows, steps = chunk.inputs.shape
        self.cell.runs.append((rows, steps))
        if number in self.cell.failures:
            self.cell.failed_rows += rows
            for tensor in (chunk.output, *chunk.after):
                tensor[:] = np.nan
            raise ModelFailure(f"run {number} was told to fail")
        seen: dict[int, State] = {}
        for row in range(rows):
            state: State = (
                int(chunk.state[0][row, 0]),
                int(chunk.state[1][row, 0]),
                int(chunk.state[1][row, 1]),
            )
            for step in range(int(chunk.lengths[row])):
                state = advance(state, int(chunk.inputs[row, step]))
                seen[row * steps + step] = state
            chunk.after[0][row] = state[0]
            chunk.after[1][row] = state[1:]
        for place, position in enumerate(chunk.wanted.tolist()):
            chunk.output[place] = logits_of(seen[position])


class GatedCell(FakeCell):
    """A fake cell whose runs wait at a gate; `is_inside` is set once one waits."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_inside = threading.Event()

    def bind(self, chunk: Chunk) -> FakeBound:
        return GatedBound(self, chunk)


class GatedBound(FakeBound):
    """Runs one chunk of the gated cell."""

    def run(self) -> None:
        assert isinstance(self.cell, GatedCell)
        self.cell.is_inside.set()
        assert self.cell.gate.wait(PATIENCE_S)
        super().run()


def _check_arrays(chunk: Chunk) -> None:
    """Check the contract of `Chunk`."""
    rows, steps = chunk.inputs.shape
    assert chunk.inputs.dtype == np.int64
    assert chunk.lengths.dtype == np.int32
    assert chunk.lengths.shape == (rows,)
    assert ((chunk.lengths >= 1) & (chunk.lengths <= steps)).all()
    assert chunk.wanted.dtype == np.int64
    assert chunk.output.shape == (len(chunk.wanted), VOCABULARY)
    for before, after, width in zip(chunk.state, chunk.after, SHAPE.state, strict=True):
        assert before.shape == after.shape == (rows, width)
        assert before.dtype == after.dtype == np.float32
        assert not np.may_share_memory(before, after)
    arrays = (chunk.inputs, chunk.lengths, chunk.wanted, chunk.output, *chunk.state, *chunk.after)
    assert all(array.flags.c_contiguous for array in arrays)


def expected(row: Row) -> list[Any]:
    """Compute everything that a row should receive, for it alone, one step after the other."""
    request = row.request
    state = START
    if request.state is not None:
        (hidden,), (cell, steps) = request.state
        state = int(hidden), int(cell), int(steps)
    outputs = []
    for token in request.inputs.tolist():
        state = advance(state, token)
        outputs.append(logits_of(state))
    if request.goal is Goal.LAST:
        return [outputs[-1]]
    if request.goal is Goal.EVERY:
        return [np.stack(outputs)]
    if request.goal is Goal.SCORE:
        return [logprobs_of(np.stack(outputs[:-1]), request.inputs[1:])]
    return _generated(request, state)


def _generated(request: Request, state: State) -> list[Generated]:
    options = request.sampling
    tokens: list[Generated] = []
    for index in range(request.max_tokens):
        logits = logits_of(state)[None]
        position = np.array([request.position + len(request.inputs) + index], np.uint64)
        picked = sample(
            logits,
            np.array([options.temperature]),
            np.array([options.top_k]),
            np.array([options.top_p]),
            np.array([key_of(options.seed)]),
            position,
        )
        logprob = float(logprobs_of(logits, picked)[0]) if request.wants_logprobs else float("nan")
        tokens.append(Generated(int(picked[0]), logprob, index == request.max_tokens - 1))
        state = advance(state, int(picked[0]))
    return tokens


class Reader:
    """A receiver that keeps what it receives, tokens one by one, and reads it when told.

    Args:
        max_backlog: tokens not yet read at which the row is suspended.

    Attributes:
        submitter: is told when a reader whose row may be suspended has caught up; None: nobody is.
    """

    def __init__(self, max_backlog: int = 1_000_000) -> None:
        self.max_backlog = max_backlog
        self.received: list[Any] = []
        self.num_read = 0
        self.row: Row | None = None
        self.submitter: Submitter | None = None

    @property
    def backlog(self) -> int:
        return len(self.received) - self.num_read

    def receive(self, output: Any) -> None:
        self.received.extend(unpacked(output) if isinstance(output, TokenBatch) else [output])

    def take(self) -> None:
        """Read all that there is, as a `TokenStream` does."""
        count = len(self.received)  # read once: more may come meanwhile
        is_slow = count - self.num_read >= self.max_backlog
        self.num_read = count
        if is_slow and self.row is not None and self.submitter is not None:
            self.submitter.resume(self.row)


def row_of(
    request: Request, deadline: float | None = None, client: str = "", max_backlog: int = 1_000_000
) -> Row:
    """Build a row with a `Reader`."""
    reader = Reader(max_backlog)
    reader.row = row = Row(request, reader, Times(0.0), deadline, client)
    return row


def reader_of(row: Row) -> Reader:
    assert isinstance(row.receiver, Reader)
    return row.receiver


def received(row: Row) -> list[Any]:
    return reader_of(row).received


def kinds_of(row: Row) -> list[type]:
    """Return the types of a row's outputs."""
    return [type(output) for output in received(row)]


def last_of(tokens: Iterable[int], deadline: float | None = None, client: str = "") -> Row:
    return row_of(Request(np.array(list(tokens), np.int64), Goal.LAST), deadline, client)


def every_of(tokens: Iterable[int], deadline: float | None = None, client: str = "") -> Row:
    return row_of(Request(np.array(list(tokens), np.int64), Goal.EVERY), deadline, client)


def score_of(tokens: Iterable[int], deadline: float | None = None, client: str = "") -> Row:
    return row_of(Request(np.array(list(tokens), np.int64), Goal.SCORE), deadline, client)


def generation_of(
    tokens: Iterable[int],
    max_tokens: int,
    sampling: Sampling | None = None,
    deadline: float | None = None,
    max_backlog: int = 1_000_000,
    wants_logprobs: bool = True,
    client: str = "",
) -> Row:
    inputs = np.array(list(tokens), np.int64)
    request = Request(
        inputs,
        Goal.GENERATE,
        sampling or Sampling(seed=1),
        max_tokens,
        wants_logprobs=wants_logprobs,
    )
    return row_of(request, deadline, client, max_backlog)


def by(client: str, *rows: Row) -> list[Row]:
    """Make rows a client's, and return them."""
    for row in rows:
        row.client = client
    return list(rows)


LONG = [index % 7 for index in range(50)]


def mixed() -> list[Row]:
    """Return rows of every goal and many lengths, greedy and not."""
    return [
        last_of(LONG[:1]),
        last_of(LONG),
        every_of(LONG[:3]),
        every_of(LONG[5:]),
        score_of(LONG[:2]),
        score_of(LONG[3:40]),
        generation_of(LONG[:1], 1),
        generation_of(LONG[:20], 12),
        generation_of(LONG[:5], 9, Sampling(temperature=0.0)),
        generation_of(LONG[:2], 15, Sampling(0.8, 3, 0.9, 2**63)),
        generation_of(LONG[:9], 4, Sampling(seed=5), wants_logprobs=False),
        last_of(LONG[7:12]),
    ]


def submit_to(group: EngineGroup, rows: list[Row]) -> None:
    """Submit rows of one client whose readers resume them in the same group."""
    for row in rows:
        if isinstance(row.receiver, Reader):
            row.receiver.submitter = group
    group.submit(rows)


def check_every_turn(engine: EngineCore) -> None:
    """Let an engine check its integrity after each of its turns: a breach becomes a fault of the engine."""
    run_turn = engine.run_turn

    def checked() -> Turn:
        turn = run_turn()
        engine.check_integrity()
        return turn

    engine.run_turn = checked  # type: ignore[method-assign]


class Bench:
    """An engine in a group of its own, driven by hand: outputs arrive at once, time stands still until it is
    moved.

    Args:
        slots: rows active side by side.
        chunk: time steps of a chunk tick at most.
        max_waiting: bound of the group.
        cell: computes.
        shape: widths of its tensors.
        clock: returns seconds; None: `now`.
        end_tokens: tokens that end the row that generates them.
        generator: runs step ticks of several steps; None: all have one.
        step_sizes: steps of those.
        others: further limits of the engine.

    Attributes:
        posts: the outputs of each turn that had any.
    """

    def __init__(
        self,
        slots: int = 3,
        chunk: int = 4,
        max_waiting: int = 100,
        cell: Any = None,
        shape: Shape = SHAPE,
        clock: Callable[[], float] | None = None,
        end_tokens: Collection[int] = (),
        generator: Generator | None = None,
        step_sizes: tuple[StepSize, ...] = (),
        **others: Any,
    ) -> None:
        self.now = 0.0
        self.posts: list[list[Output]] = []
        self.cell = cell or FakeCell()
        self.metrics = EngineMetrics()
        limits = Limits(slots, chunk, **others)
        self.engine = Engine(
            "fake",
            self.cell,
            shape,
            limits,
            self.metrics,
            clock or (lambda: self.now),
            0,
            Decoding(end_tokens, generator, step_sizes),
        )
        self.group = EngineGroup([self.engine], max_waiting)

    @property
    def active(self) -> int:
        """Rows that hold a slot."""
        return self.engine.facts.num_active

    @property
    def num_waiting(self) -> int:
        """Rows in the queue, suspended ones included, as of the last turn."""
        return self.engine.facts.num_waiting

    def submit(self, *rows: Row) -> None:
        submit_to(self.group, list(rows))

    def cancel(self, *rows: Row) -> None:
        self.group.cancel(list(rows))

    def tick(self) -> bool:
        """Run one turn, check the engine's integrity and deliver; return whether there is more to do."""
        turn = self.engine.run_turn()
        self.engine.check_integrity()
        self._deliver(turn.outputs)
        return turn.is_busy

    def _deliver(self, outputs: list[Output]) -> None:
        if outputs:
            self.posts.append(outputs)
        deliver(outputs)

    def tick_until_idle(self, max_turns: int = 10_000) -> int:
        """Run turns until there is nothing to do; return how many had more to do."""
        for count in range(max_turns):
            if not self.tick():
                return count
        raise AssertionError(f"still busy after {max_turns} turns")

    def run_until_fault(self) -> None:
        """Run turns until one raises what nobody foresaw, and end the engine as its driver does."""
        self.cell.is_faulty = True
        try:
            self.tick_until_idle()
        except ZeroDivisionError:
            self._deliver(self.engine.fail())
        assert self.engine.facts.has_failed, "the engine became idle instead"

    def run(self, *rows: Row) -> None:
        self.submit(*rows)
        self.tick_until_idle()

    def assert_empty(self) -> None:
        """Raise AssertionError unless nothing is left of all rows."""
        self.engine.check_integrity()
        assert self.active == self.num_waiting == self.group.num_waiting == 0
        assert_counted_out(self.group)


def assert_counted_out(group: EngineGroup) -> None:
    """Raise AssertionError unless counters say that nobody waits or is active, and engines hold no row."""
    assert group.num_waiting == group.active == 0
    for account in group._accounts.values():
        assert account.submitted == account.left
        assert account.submitted_steps == account.left_steps
    for engine in group.engines:
        assert not engine._queue
        assert not engine._deadlines
        assert not engine.inbox
        assert engine._queue.steps == 0
        if isinstance(engine, Engine):
            assert not engine._stalled
            assert not engine._active._held


def assert_same(found: list[Any], right: list[Any]) -> None:
    """Raise AssertionError unless arrays and tokens with their log-probabilities are equal bit for bit."""
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        if isinstance(other, Generated):
            assert isinstance(one, Generated), f"expected {other}, found {one!r}"
            assert (one.token, one.is_last) == (other.token, other.is_last)
            np.testing.assert_array_equal(one.logprob, other.logprob)
        else:
            assert isinstance(one, np.ndarray), f"expected an array, found {one!r}"
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def assert_answered(*rows: Row) -> None:
    """Raise AssertionError unless each row has received exactly what it would have received alone."""
    for row in rows:
        assert_same(received(row), expected(row))


def ignore_failure(engine: Engine) -> None:
    """Take the news that an engine has failed and do nothing."""


@asynccontextmanager
async def running_engine(
    cell: FakeCell | None = None,
    slots: int = 3,
    max_waiting: int = 50,
    kind: Kind = "thread",
    end_tokens: Collection[int] = (),
) -> AsyncIterator[EngineGroup]:
    """Run a group of one engine that delivers into this event loop; what is done with it must end within
    PATIENCE_S. Its integrity is checked after each turn.
    """
    loop = asyncio.get_running_loop()
    engine = Engine(
        "fake", cell or FakeCell(), SHAPE, Limits(slots, 4), EngineMetrics(), decoding=Decoding(end_tokens)
    )
    check_every_turn(engine)
    make: Callable[..., Driver] = ThreadDriver if kind == "thread" else LoopDriver
    driver = make(engine, loop, ignore_failure)
    driver.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield EngineGroup([engine], max_waiting)
    finally:
        if isinstance(cell, GatedCell):
            cell.gate.set()
        await asyncio.to_thread(driver.stop)
