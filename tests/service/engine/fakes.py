"""An engine without onnxruntime: a network of whole numbers whose every answer is known, and an engine driven
by hand on a clock of its own.

The fake cell computes row by row, so the exact result of a sequence is what `expected` computes for it alone,
whoever else is in the batch.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.delivery import deliver
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.sampling import Floats, Sampling, key_of, logprobs_of, options_of, pick
from service.engine.sampling import Tokens as TokenIds
from service.engine.sequence import Goal, Result, Sequence, Tokens
from service.errors import ModelFailure
from service.runtime import Chunk
from tests.service.builders import engine_metrics

VOCABULARY = 7
SHAPE = Shape(features=None, outputs=VOCABULARY, state=(1, 2))
# Small enough that every number stays exact in float32.
_MODULUS = 4093
# No test takes nearly as long; one that waits longer has failed.
PATIENCE_S = 20.0


class Generated(NamedTuple):
    """One token of what `Tokens` brings: its id, its log-probability (NaN when nobody asked), whether it is
    the sequence's last.
    """

    token: int
    logprob: float
    is_last: bool


def unpacked(tokens: Tokens) -> list[Generated]:
    """Token by token."""
    logprobs = tokens.logprobs or [float("nan")] * len(tokens.ids)
    last = len(tokens.ids) - 1
    return [
        Generated(*one, tokens.is_last and index == last)
        for index, one in enumerate(zip(tokens.ids, logprobs, strict=True))
    ]


State = tuple[int, int, int]
START: State = (0, 0, 0)


def advance(state: State, token: int) -> State:
    """The fake network's recurrence: its state after one more token."""
    hidden, cell, steps = state
    hidden = (hidden * 31 + token * 17 + cell + 5) % _MODULUS
    return hidden, (cell * 7 + hidden) % _MODULUS, steps + 1


def logits_of(state: State) -> NDArray[np.float32]:
    """The fake network's head, float32 (V,)."""
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
    top_k: TokenIds,
    top_p: Floats,
    keys: NDArray[np.uint64],
    positions: NDArray[np.uint64],
) -> TokenIds:
    """`pick` for rows whose options serve once; the arguments are those of `pick` and `options_of`."""
    return pick(logits, options_of(temperature, top_k, top_p, logits.shape[1]), keys, positions)


class FakeCell:
    """Computes chunks with `advance` and `logits_of`, and checks what it is given.

    Args:
        failures: numbers of the runs, from 0, that fail.

    With `is_faulty` set it raises what no runtime should.
    """

    is_faulty = False

    def __init__(self, failures: Iterable[int] = ()) -> None:
        self.failures = frozenset(failures)
        self.runs: list[tuple[int, int]] = []
        self.failed_rows = 0

    def bind(self, chunk: Chunk) -> "FakeBound":
        return FakeBound(self, chunk)


class FakeBound:
    """A chunk of the fake cell."""

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
    """A fake cell whose runs wait at a gate; `is_inside` is set once one does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_inside = threading.Event()

    def bind(self, chunk: Chunk) -> FakeBound:
        return GatedBound(self, chunk)


class GatedBound(FakeBound):
    """A chunk of the gated cell."""

    def run(self) -> None:
        assert isinstance(self.cell, GatedCell)
        self.cell.is_inside.set()
        assert self.cell.gate.wait(PATIENCE_S)
        super().run()


def _check_arrays(chunk: Chunk) -> None:
    """The contract of `Chunk`."""
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


def expected(sequence: Sequence) -> list[Any]:
    """Everything that a sequence should receive, computed for it alone, one step after the other."""
    state = START
    outputs = []
    for token in sequence.inputs.tolist():
        state = advance(state, token)
        outputs.append(logits_of(state))
    if sequence.goal is Goal.LAST:
        return [outputs[-1]]
    if sequence.goal is Goal.SCORE:
        return [logprobs_of(np.stack(outputs[:-1]), sequence.inputs[1:])]
    return _generated(sequence, state)


def _generated(sequence: Sequence, state: State) -> list[Generated]:
    options = sequence.sampling
    tokens: list[Generated] = []
    for index in range(sequence.max_tokens):
        logits = logits_of(state)[None]
        position = np.array([len(sequence.inputs) + index], np.uint64)
        picked = sample(
            logits,
            np.array([options.temperature]),
            np.array([options.top_k]),
            np.array([options.top_p]),
            np.array([key_of(options.seed)]),
            position,
        )
        logprob = float(logprobs_of(logits, picked)[0]) if sequence.wants_logprobs else float("nan")
        tokens.append(Generated(int(picked[0]), logprob, index == sequence.max_tokens - 1))
        state = advance(state, int(picked[0]))
    return tokens


class Reader:
    """Keeps what it receives, tokens one by one; takes it when told.

    Args:
        most_backlog: tokens not yet taken at which the row pauses.
    """

    def __init__(self, most_backlog: int = 1_000_000) -> None:
        self.most_backlog = most_backlog
        self.received: list[Any] = []
        self.taken = 0

    @property
    def backlog(self) -> int:
        return len(self.received) - self.taken

    def receive(self, result: Any) -> None:
        self.received.extend(unpacked(result) if isinstance(result, Tokens) else [result])

    def take(self) -> None:
        self.taken = len(self.received)


def reader_of(sequence: Sequence) -> Reader:
    assert isinstance(sequence.receiver, Reader)
    return sequence.receiver


def received(sequence: Sequence) -> list[Any]:
    return reader_of(sequence).received


def last_of(tokens: Iterable[int], deadline: float | None = None) -> Sequence:
    return Sequence(np.array(list(tokens), np.int64), Goal.LAST, Reader(), 0.0, deadline)


def score_of(tokens: Iterable[int], deadline: float | None = None) -> Sequence:
    return Sequence(np.array(list(tokens), np.int64), Goal.SCORE, Reader(), 0.0, deadline)


def generation_of(
    tokens: Iterable[int],
    max_tokens: int,
    sampling: Sampling | None = None,
    deadline: float | None = None,
    most_backlog: int = 1_000_000,
    wants_logprobs: bool = True,
) -> Sequence:
    inputs = np.array(list(tokens), np.int64)
    return Sequence(
        inputs,
        Goal.GENERATE,
        Reader(most_backlog),
        0.0,
        deadline,
        sampling or Sampling(seed=1),
        max_tokens,
        wants_logprobs,
    )


LONG = [index % 7 for index in range(50)]


def mixed() -> list[Sequence]:
    """Every goal, many lengths, greedy and not."""
    return [
        last_of(LONG[:1]),
        last_of(LONG),
        score_of(LONG[:2]),
        score_of(LONG[3:40]),
        generation_of(LONG[:1], 1),
        generation_of(LONG[:20], 12),
        generation_of(LONG[:5], 9, Sampling(temperature=0.0)),
        generation_of(LONG[:2], 15, Sampling(0.8, 3, 0.9, 2**63)),
        generation_of(LONG[:9], 4, Sampling(seed=5), wants_logprobs=False),
        last_of(LONG[7:12]),
    ]


class Bench:
    """An engine driven by hand; results arrive at once, time stands still until it is moved.

    Args:
        slots, chunk, max_waiting: limits of the engine.
        others: further limits.
        cell: what computes.
        shape: of its tensors.
    """

    def __init__(
        self,
        slots: int = 3,
        chunk: int = 4,
        max_waiting: int = 100,
        cell: Any = None,
        shape: Shape = SHAPE,
        **others: Any,
    ) -> None:
        self.now = 0.0
        self.posts: list[list[Result]] = []
        self.cell = cell or FakeCell()
        self.metrics = engine_metrics()
        self.engine = Engine(
            "fake",
            self.cell,
            shape,
            Limits(slots, chunk, max_waiting, **others),
            self._post,
            self.metrics,
            lambda: self.now,
        )

    def _post(self, results: list[Result]) -> None:
        self.posts.append(results)
        for sequence, result in results:
            sequence.receiver.receive(result)

    def submit(self, *sequences: Sequence) -> None:
        self.engine.submit(list(sequences))

    def tick(self) -> bool:
        """One turn, after which the engine's books must be in order and at most one post have been made."""
        before = len(self.posts)
        ran = self.engine.tick()
        self.engine.check_integrity()
        assert len(self.posts) - before <= 1
        return ran

    def tick_until_idle(self, most: int = 10_000) -> int:
        """Turns until nothing can run; how many ran."""
        for count in range(most):
            if not self.tick():
                return count
        raise AssertionError(f"still busy after {most} ticks")

    def run_until_fault(self) -> None:
        """The engine's thread as it ends on an error that it did not foresee, run in this one."""
        self.cell.is_faulty = True
        self.engine._run()

    def run(self, *sequences: Sequence) -> None:
        self.submit(*sequences)
        self.tick_until_idle()


def assert_same(found: list[Any], right: list[Any]) -> None:
    """Bit for bit: arrays, tokens with log-probabilities."""
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        if isinstance(other, Generated):
            assert isinstance(one, Generated)
            assert (one.token, one.is_last) == (other.token, other.is_last)
            np.testing.assert_array_equal(one.logprob, other.logprob)
        else:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def assert_answered(*sequences: Sequence) -> None:
    """Each has received exactly what it would have received alone."""
    for sequence in sequences:
        assert_same(received(sequence), expected(sequence))


@asynccontextmanager
async def running_engine(
    cell: FakeCell | None = None, slots: int = 3, max_waiting: int = 50
) -> AsyncIterator[Engine]:
    """An engine in its own thread that delivers into this event loop; what is done with it must end within
    PATIENCE_S.
    """
    loop = asyncio.get_running_loop()

    def post(results: list[Result]) -> None:
        loop.call_soon_threadsafe(deliver, results)

    engine = Engine("fake", cell or FakeCell(), SHAPE, Limits(slots, 4, max_waiting), post, engine_metrics())
    engine.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield engine
    finally:
        if isinstance(cell, GatedCell):
            cell.gate.set()
        await asyncio.to_thread(engine.stop)
