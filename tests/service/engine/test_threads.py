"""Tests of engines with real threads: eight threads submit, read, cancel and let deadlines pass, while
drivers run turns and the event loop delivers, all of them interrupted every few bytecodes.

Every row receives exactly its own outputs: a prefix of them, then at most one error that it may have. Nothing
is lost, doubled, mixed up or starved, and in the end all counters are 0.
"""

import asyncio
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from structlog.testing import capture_logs

from service.engine.core import EngineCore
from service.engine.driver import Driver, Kind, LoopDriver, ThreadDriver
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal, Request, Row
from service.engine.sampling import Sampling
from service.errors import DeadlineExceeded, DeadlineTooNear, ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import (
    LONG,
    SHAPE,
    VOCABULARY,
    FakeCell,
    assert_counted_out,
    assert_same,
    check_every_turn,
    expected,
    kinds_of,
    reader_of,
    received,
    row_of,
    submit_to,
)

NUM_THREADS = 8
NUM_CALLERS = 400
MAX_OPEN = 6
MAX_WAITING = 30
CLIENTS = ("a", "b", "c", "d", "e")
GOALS = (*Goal, Goal.GENERATE)
# No run takes nearly as long; a row that has not ended by then is starved or lost.
PATIENCE_S = 60.0


@pytest.fixture
def short_switches() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@dataclass
class Outcomes:
    """What has become of everything that a thread submitted.

    Attributes:
        rows: accepted rows.
        cancelled: those that were cancelled before their ends were seen.
        refused: rows refused at once, by the error.
        trouble: what has gone wrong in the thread itself.
    """

    rows: list[Row] = field(default_factory=list)
    cancelled: set[Row] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)
    trouble: list[BaseException] = field(default_factory=list)


class Callers:
    """One thread's callers: a few at a time, each with a request of one client.

    Args:
        group: gets the requests.
        seed: of all choices.
        goals: of the requests.
    """

    def __init__(self, group: EngineGroup, seed: int, goals: Sequence[Goal] = GOALS) -> None:
        self.outcomes = Outcomes()
        self._group = group
        self._goals = goals
        self._random = random.Random(seed)
        self._open: list[list[Row]] = []

    def run(self) -> None:
        try:
            self._run(NUM_CALLERS // NUM_THREADS)
        except BaseException as error:
            self.outcomes.trouble.append(error)

    def _run(self, left: int) -> None:
        ends = time.monotonic() + PATIENCE_S
        while left or self._open:
            assert time.monotonic() < ends, (
                f"still open: {[kinds_of(row) for one in self._open for row in one]}"
            )
            if left and len(self._open) < MAX_OPEN:
                left -= self._submit()
            for rows in self._open:
                self._look_at(rows)
            self._open = [rows for rows in self._open if not all(map(self._has_ended, rows))]
            time.sleep(self._random.random() * 0.004)

    def _submit(self) -> bool:
        """Submit one caller's request; return whether the caller is content with what came of it."""
        rows = self._build()
        try:
            submit_to(self._group, rows)
        except (Overloaded, DeadlineTooNear, ModelFailure) as refusal:
            self.outcomes.refused[type(refusal).__name__] += 1
            # Most of the others come again.
            return isinstance(refusal, ModelFailure) or self._random.random() < 0.05
        self.outcomes.rows += rows
        self._open.append(rows)
        return True

    def _build(self) -> list[Row]:
        choice = self._random.choice
        patience = choice([None, None, None, None, 30.0, 0.1, 0.02, 0.001, -1.0])
        deadline = None if patience is None else time.monotonic() + patience
        client, goal = choice(CLIENTS), choice(self._goals)
        count = 1 if goal is Goal.GENERATE else choice([1, 1, 2, 4])
        max_backlog = choice([1, 2, 5, 1_000_000])
        return [row_of(self._request(goal), deadline, client, max_backlog) for _ in range(count)]

    def _request(self, goal: Goal) -> Request:
        start = self._random.randrange(VOCABULARY)
        tokens = LONG[start : start + self._random.randint(2, 40)]
        sampling = Sampling(self._random.choice([0.0, 1.0]), seed=self._random.randrange(1 << 64))
        max_tokens = self._random.randint(1, 40)
        return Request(np.array(tokens, np.int64), goal, sampling, max_tokens, wants_logprobs=True)

    def _look_at(self, rows: list[Row]) -> None:
        """Read, wait or leave, by chance."""
        drawn = self._random.random()
        if drawn < 0.4:
            for row in rows:
                reader_of(row).take()
        elif drawn < 0.405:
            self.outcomes.cancelled.update(row for row in rows if not self._has_ended(row))
            self._group.cancel(rows)

    def _has_ended(self, row: Row) -> bool:
        """Return whether a row's last output has been delivered, or will never come."""
        outputs = received(row)
        if outputs and isinstance(outputs[-1], BaseException):
            return True
        if row in self.outcomes.cancelled:
            return row.is_over
        return len(outputs) == (row.request.max_tokens if row.generates else 1)


def right_outputs_of(row: Row, outcomes: Outcomes) -> str:
    """Raise AssertionError unless a row has received what it may; return what has become of it."""
    outputs, right = received(row), expected(row)
    assert row.is_over
    error = outputs[-1] if outputs and isinstance(outputs[-1], BaseException) else None
    if error is not None:
        outputs = outputs[:-1]
        assert len(outputs) < len(right)
    assert_same(outputs, right[: len(outputs)])
    if isinstance(error, DeadlineExceeded):
        assert row.deadline is not None
        assert row.times.ended_at >= row.deadline
        return "out of time"
    if isinstance(error, Overloaded):
        assert not row.has_begun
        return "evicted"
    if isinstance(error, ModelFailure):
        return "failed"
    assert error is None
    if len(outputs) == len(right):
        return "answered"
    assert row in outcomes.cancelled, "outputs are lost"
    return "cancelled"


def build_engines(count: int, chunk_rows: int, cell: FakeCell | None = None) -> list[Engine]:
    limits = Limits(
        slots=4,
        chunk=4,
        chunk_rows=chunk_rows,
        write_interval_s=0.0002,
        write_interval_row_s=0.0001,
        prompt_cache_bytes=5000,
    )
    engines = [
        Engine("fake", cell or FakeCell(), SHAPE, limits, EngineMetrics(), number=number)
        for number in range(count)
    ]
    for engine in engines:
        check_every_turn(engine)
    return engines


async def run_callers(group: EngineGroup, seed: int, goals: Sequence[Goal] = GOALS) -> list[Outcomes]:
    """Run all callers in their threads, while the event loop stays free; return what has become of them."""
    callers = [Callers(group, seed * NUM_THREADS + number, goals) for number in range(NUM_THREADS)]
    threads = [threading.Thread(target=one.run, daemon=True) for one in callers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):  # noqa: ASYNC110 (threads do not set an Event)
        await asyncio.sleep(0.005)
    return [one.outcomes for one in callers]


async def settle(group: EngineGroup) -> None:
    """Wait until the engines have handled all messages and hold no row."""
    ends = time.monotonic() + PATIENCE_S
    while group.num_waiting or group.active or any(engine.inbox for engine in group.engines):
        assert time.monotonic() < ends, "rows are left in the engines"
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


@asynccontextmanager
async def driving(kind: Kind, engines: Sequence[EngineCore]) -> AsyncIterator[list[EngineCore]]:
    """Run each engine with a driver of this kind; return those that the drivers report as failed."""
    loop, failed = asyncio.get_running_loop(), list[EngineCore]()
    maker: Callable[..., Driver] = ThreadDriver if kind == "thread" else LoopDriver
    drivers = [maker(engine, loop, failed.append) for engine in engines]
    for driver in drivers:
        driver.start()
    try:
        yield failed
    finally:
        for driver in drivers:
            await asyncio.to_thread(driver.stop)


@pytest.mark.usefixtures("short_switches")
@pytest.mark.parametrize(
    ("kind", "num_engines", "chunk_rows"),
    [
        pytest.param("thread", 1, 2, id="a thread"),
        pytest.param("loop", 1, 2, id="the event loop"),
        pytest.param("thread", 2, 0, id="two threads"),
    ],
)
async def test_callers_in_many_threads_get_exactly_their_own_outputs(
    kind: Kind, num_engines: int, chunk_rows: int
) -> None:
    engines = build_engines(num_engines, chunk_rows)
    group = EngineGroup(engines, MAX_WAITING)
    async with driving(kind, engines) as failed:
        outcomes = await run_callers(group, seed=random.randrange(1 << 30))
        await settle(group)
    assert [error for one in outcomes for error in one.trouble] == []
    assert not failed
    ends = Counter(right_outputs_of(row, one) for one in outcomes for row in one.rows)
    refused = sum((one.refused for one in outcomes), Counter[str]())
    assert_counted_out(group)
    assert not ends["failed"]
    # What the test is about has happened. The odds that one of these is missing are below one in a million.
    assert ends["answered"]
    assert ends["out of time"]
    assert refused["Overloaded"] + ends["evicted"]


@pytest.mark.usefixtures("short_switches")
@pytest.mark.parametrize("kind", ["thread", "loop"])
async def test_fault_among_callers_in_many_threads_leaves_no_row_without_its_end(kind: Kind) -> None:
    """Rows that are submitted while the engine fails race with its end: each is refused or ended."""
    cell = FakeCell()
    engines = build_engines(1, 2, cell)
    group = EngineGroup(engines, MAX_WAITING)
    with capture_logs() as logs:
        async with driving(kind, engines) as failed:
            asyncio.get_running_loop().call_later(0.1, setattr, cell, "is_faulty", True)
            outcomes = await run_callers(group, seed=random.randrange(1 << 30))
    assert [error for one in outcomes for error in one.trouble] == []
    assert failed == engines
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["engine stopped"]
    ends = Counter(right_outputs_of(row, one) for one in outcomes for row in one.rows)
    assert ends["failed"]
    assert group.num_waiting == group.active == 0
    assert all(account.waiting == 0 for account in group._accounts.values())
