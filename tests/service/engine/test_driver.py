"""Tests of service.engine.driver: the signal that wakes a thread, and what both drivers do with an engine."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from service.engine import driver as driver_module
from service.engine.core import Turn
from service.engine.driver import Driver, Kind, LoopDriver, Signal, ThreadDriver
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.inbox import Submit
from service.engine.limits import Limits
from service.engine.request import ANYONE, Caller, Goal, Request, Row
from service.engine.sampling import Sampling
from service.engine.streaming import open_stream, run_all, run_one
from service.errors import DeadlineExceeded, ModelFailure
from service.observability.metrics import EngineMetrics
from service.runtime import Chunk
from tests.service.engine.fakes import (
    LONG,
    PATIENCE_S,
    SHAPE,
    FakeBound,
    FakeCell,
    GatedCell,
    Generated,
    assert_answered,
    assert_counted_out,
    assert_same,
    check_every_turn,
    expected,
    generation_of,
    kinds_of,
    last_of,
    mixed,
    received,
    score_of,
    submit_to,
    unpacked,
)

# Signals.


def test_set_from_before_the_wait_is_not_lost() -> None:
    signal = Signal()
    signal.clear()
    signal.set()
    signal.wait(None)


def test_wait_ends_when_time_is_up() -> None:
    signal = Signal()
    signal.clear()
    started = time.monotonic()
    signal.wait(0.02)
    assert time.monotonic() - started >= 0.02


@pytest.mark.parametrize("num_setters", [1, 4])
def test_every_piece_of_work_is_seen_whenever_it_is_announced(num_setters: int) -> None:
    """A lost signal would leave the worker waiting for ever behind the last piece."""
    signal, left, seen = Signal(), list[int](), list[int]()
    count = 2000

    def work() -> None:
        while len(seen) < num_setters * count:
            signal.clear()
            while left:
                seen.append(left.pop())
            if len(seen) < num_setters * count:
                signal.wait(None)

    def announce() -> None:
        for number in range(count):
            left.append(number)
            signal.set()

    worker = threading.Thread(target=work, daemon=True)
    threads = [threading.Thread(target=announce, daemon=True) for _ in range(num_setters)]
    worker.start()
    for thread in threads:
        thread.start()
    worker.join(PATIENCE_S)
    assert not worker.is_alive()


# Drivers.

KINDS: tuple[Kind, ...] = ("thread", "loop")
both_kinds = pytest.mark.parametrize("kind", KINDS)
MAKERS: dict[Kind, Callable[..., Driver]] = {"thread": ThreadDriver, "loop": LoopDriver}
PROMPT = np.array([1, 2, 3], np.int64)
REQUEST = Request(PROMPT, Goal.LAST)


def stream_of(max_tokens: int) -> Request:
    return Request(PROMPT, Goal.GENERATE, Sampling(seed=1), max_tokens, wants_logprobs=True)


class WatchedCell(FakeCell):
    """A fake cell that notes which threads run it and takes some processor time for each run.

    Args:
        seconds: processor time of a run.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.threads: set[int] = set()

    def bind(self, chunk: Chunk) -> FakeBound:
        return _WatchedBound(self, chunk)


class _WatchedBound(FakeBound):
    def run(self) -> None:
        assert isinstance(self.cell, WatchedCell)
        self.cell.threads.add(threading.get_ident())
        ends = time.thread_time() + self.cell.seconds
        while time.thread_time() < ends:
            pass
        super().run()


@dataclass
class Driven:
    """An engine with its driver and group.

    Attributes:
        failed: engines that the driver has reported.
        turns: how many turns have been begun.
        failures: how often the engine was told to fail.
    """

    engine: Engine
    group: EngineGroup
    driver: Driver
    failed: list[Engine] = field(default_factory=list)
    turns: int = 0
    failures: int = 0


def count_turns(driven: Driven) -> None:
    run_turn, fail = driven.engine.run_turn, driven.engine.fail

    def counted_turn() -> Turn:
        driven.turns += 1
        return run_turn()

    def counted_fail() -> list[Any]:
        driven.failures += 1
        return fail()

    driven.engine.run_turn = counted_turn  # type: ignore[method-assign]
    driven.engine.fail = counted_fail  # type: ignore[method-assign]


@asynccontextmanager
async def driving(
    kind: Kind, cell: FakeCell | None = None, slots: int = 3, max_waiting: int = 500
) -> AsyncIterator[Driven]:
    """Run an engine with a driver of this kind; what is done with it must end within PATIENCE_S."""
    engine = Engine("fake", cell or FakeCell(), SHAPE, Limits(slots, 4), EngineMetrics())
    check_every_turn(engine)
    failed: list[Engine] = []
    driver = MAKERS[kind](engine, asyncio.get_running_loop(), failed.append)
    driven = Driven(engine, EngineGroup([engine], max_waiting), driver, failed)
    count_turns(driven)
    driver.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield driven
    finally:
        if isinstance(cell, GatedCell):
            cell.gate.set()
        await asyncio.to_thread(driver.stop)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that another thread may bring about."""
    while not condition():  # noqa: ASYNC110 (threads do not set an Event)
        await asyncio.sleep(0.001)


async def until_over(*rows: Row) -> None:
    """Wait until rows have their last outputs."""
    await until(lambda: all(row.is_over for row in rows))
    await asyncio.sleep(0.01)


@both_kinds
async def test_every_goal_gets_its_own_answer(kind: Kind) -> None:
    async with driving(kind) as driven:
        rows = mixed()
        submit_to(driven.group, rows)
        await until_over(*rows)
        assert_answered(*rows)
        await until(lambda: not driven.group.active)
        assert_counted_out(driven.group)


async def test_loop_driver_runs_turns_in_the_thread_of_the_loop() -> None:
    cell = WatchedCell()
    async with driving("loop", cell) as driven:
        assert_same(await run_all(driven.group, [REQUEST] * 9, ANYONE), expected(last_of(PROMPT)) * 9)
        assert driven.driver.kind == "loop"
    assert cell.threads == {threading.get_ident()}


async def test_thread_driver_runs_turns_in_a_thread_of_its_own() -> None:
    cell = WatchedCell()
    async with driving("thread", cell) as driven:
        await run_all(driven.group, [REQUEST] * 9, ANYONE)
        [thread] = [one for one in threading.enumerate() if one.name == "engine-fake"]
        assert driven.driver.kind == "thread"
        assert cell.threads == {thread.ident}


@both_kinds
async def test_rows_from_other_threads_wake_the_engine(kind: Kind) -> None:
    async with driving(kind) as driven:
        for number in range(50):
            row = last_of([number % 7, 2])
            await asyncio.to_thread(submit_to, driven.group, [row])
            await until(lambda row=row: received(row))  # type: ignore[misc]
            assert_answered(row)


@both_kinds
async def test_engine_wakes_at_a_deadline(kind: Kind) -> None:
    """Only the stalled row's deadline can end it: nothing else happens."""
    async with driving(kind) as driven:
        deadline = time.monotonic() + 0.1
        row = generation_of([1], 10_000, deadline=deadline, max_backlog=2)
        submit_to(driven.group, [row])
        await until_over(row)
        assert kinds_of(row)[-1] is DeadlineExceeded
        assert time.monotonic() >= deadline


@both_kinds
async def test_engine_wakes_at_the_earlier_of_two_deadlines(kind: Kind) -> None:
    async with driving(kind) as driven:
        now = time.monotonic()
        late, early = (
            generation_of([1], 10_000, deadline=now + seconds, max_backlog=2) for seconds in (60.0, 0.1)
        )
        submit_to(driven.group, [late])
        await until(lambda: len(received(late)) > 2)
        submit_to(driven.group, [early])
        await until_over(early)
        assert kinds_of(early)[-1] is DeadlineExceeded
        assert not late.is_over


@both_kinds
async def test_engine_with_a_deadline_of_thousands_of_years_serves_on(kind: Kind) -> None:
    async with driving(kind) as driven:
        async with open_stream(driven.group, stream_of(50), Caller(1e200), 2) as stream:
            await asyncio.sleep(0.02)
            assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
            tokens = [token async for batch in stream for token in unpacked(batch)]
        assert_same(tokens, expected(generation_of(PROMPT, 50)))


async def run_one_of(driven: Driven) -> list[Any]:
    return [await run_one(driven.group, REQUEST, ANYONE)]


@both_kinds
async def test_idle_engine_runs_no_turns(kind: Kind) -> None:
    async with driving(kind) as driven:
        await run_one(driven.group, REQUEST, ANYONE)
        submit_to(driven.group, [generation_of([1], 100, deadline=time.monotonic() + 60, max_backlog=2)])
        await asyncio.sleep(0.05)
        before = driven.turns
        await asyncio.sleep(0.1)
        assert driven.turns - before <= 1


@both_kinds
async def test_turns_go_on_while_the_event_loop_is_busy(kind: Kind) -> None:
    """Work of others in the loop delays no row for ever, and turns leave room for it."""
    async with driving(kind) as driven:
        passes, is_ended = 0, False

        async def keep_busy() -> None:
            nonlocal passes
            while not is_ended:
                passes += 1
                ends = time.perf_counter() + 50e-6
                while time.perf_counter() < ends:
                    pass
                await asyncio.sleep(0)

        others = asyncio.create_task(keep_busy())
        for _ in range(5):
            await run_all(driven.group, [Request(np.array(LONG), Goal.SCORE), REQUEST], ANYONE)
        is_ended = True
        await others
        assert passes > 10


async def test_turns_of_a_busy_engine_do_not_multiply_with_its_messages() -> None:
    """The loop runs one turn a pass however often the engine is woken while it is busy."""
    async with driving("loop") as driven:
        submit_to(driven.group, [stream := generation_of([1], 100_000, wants_logprobs=False)])
        await until(lambda: received(stream))
        for _ in range(50):
            driven.group.resume(stream)  # changes nothing, but wakes
            await asyncio.sleep(0.001)
        before, passes = driven.turns, 100
        for _ in range(passes):
            await asyncio.sleep(0)
        assert driven.turns - before <= 2 * passes
        driven.group.cancel([stream])


# Stopping.


@both_kinds
async def test_engine_that_never_started_can_be_stopped(kind: Kind) -> None:
    engine = Engine("fake", FakeCell(), SHAPE, Limits(3, 4), EngineMetrics())
    MAKERS[kind](engine, asyncio.get_running_loop(), list[Engine]().append).stop()


async def test_stopped_engine_has_no_thread() -> None:
    async with driving("thread") as driven:
        await run_one(driven.group, REQUEST, ANYONE)
        assert any(thread.name == "engine-fake" for thread in threading.enumerate())
    assert not any(thread.name == "engine-fake" for thread in threading.enumerate())


@both_kinds
async def test_engine_stops_while_streams_run(kind: Kind) -> None:
    async with driving(kind) as driven, open_stream(driven.group, stream_of(10**7), ANYONE, 10**7) as stream:
        await anext(stream)
    before = driven.turns
    await asyncio.sleep(0.02)
    assert driven.turns == before


# From the event loop to a thread.

SLOW_S = 0.004


async def test_engine_with_quick_turns_stays_in_the_loop() -> None:
    async with driving("loop") as driven:
        async with open_stream(driven.group, stream_of(300), ANYONE, 1000) as stream:
            assert len([token async for batch in stream for token in unpacked(batch)]) == 300
        assert driven.driver.kind == "loop"


async def test_engine_with_slow_turns_moves_to_a_thread() -> None:
    cell = WatchedCell(SLOW_S)
    with capture_logs() as logs:
        async with driving("loop", cell) as driven:
            async with open_stream(driven.group, stream_of(100), ANYONE, 1000) as stream:
                tokens = [token async for batch in stream for token in unpacked(batch)]
            assert driven.driver.kind == "thread"
            assert len(cell.threads) == 2
            assert_same(tokens, expected(generation_of(PROMPT, 100)))
            assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
            assert any(thread.name == "engine-fake" for thread in threading.enumerate())
    assert not any(thread.name == "engine-fake" for thread in threading.enumerate())
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("engine moved to a thread: its turns hold the event loop", "warning")
    ]


async def test_engine_goes_on_in_the_loop_until_a_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = WatchedCell(SLOW_S)
    with capture_logs() as logs:
        async with driving("loop", cell) as driven:
            with monkeypatch.context() as patch:
                patch.setattr(ThreadDriver, "start", start_no_thread)
                async with open_stream(driven.group, stream_of(30), ANYONE, 1000) as stream:
                    tokens = [token async for batch in stream for token in unpacked(batch)]
                assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
                assert driven.driver.kind == "loop"
                assert len(logs) == 1
            assert isinstance(driven.driver, LoopDriver)
            driven.driver._retry_at = 0.0
            assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
            await until(lambda: driven.driver.kind == "thread")
            assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
    assert_same(tokens, expected(generation_of(PROMPT, 30)))
    assert [line["event"] for line in logs] == [
        "engine stays in the event loop",
        "engine moved to a thread: its turns hold the event loop",
    ]


async def test_message_that_comes_while_no_thread_can_be_started_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that was not started was the one to be woken."""
    row = last_of(PROMPT)
    async with driving("loop", WatchedCell(SLOW_S)) as driven:

        def submit_and_fail(driver: ThreadDriver) -> None:
            submit_to(driven.group, [row])
            start_no_thread(driver)

        monkeypatch.setattr(driver_module, "MAX_HOLD_S", 0.0)
        monkeypatch.setattr(ThreadDriver, "start", submit_and_fail)
        assert_same(await run_one_of(driven), expected(last_of(PROMPT)))
        await until_over(row)
        assert_answered(row)


def start_no_thread(_: ThreadDriver) -> None:
    raise RuntimeError("can't start new thread")


async def test_one_slow_turn_moves_nothing() -> None:
    cell = WatchedCell()
    async with driving("loop", cell) as driven:
        await run_one(driven.group, REQUEST, ANYONE)
        cell.seconds = SLOW_S
        await run_one(driven.group, REQUEST, ANYONE)
        cell.seconds = 0.0
        for _ in range(20):
            await run_one(driven.group, REQUEST, ANYONE)
        assert driven.driver.kind == "loop"


async def test_nothing_is_lost_while_the_engine_moves_to_a_thread() -> None:
    """Threads submit all the time; slow readers, deadlines and cancellations cross the move, too."""
    cell = WatchedCell()
    async with driving("loop", cell, slots=4) as driven:
        everyone: list[Row] = []
        cancelled: list[Row] = []

        def submit_some(seed: int) -> None:
            rng = random.Random(seed)
            for number in range(30):
                rows = [
                    last_of(LONG[: 1 + number % 9]),
                    generation_of(LONG[: 1 + number % 7], 1 + number % 5),
                ]
                submit_to(driven.group, rows)
                everyone.extend(rows)
                if number % 10 == 9:
                    driven.group.cancel(rows[1:])
                    cancelled.extend(rows[1:])
                time.sleep(rng.random() * 0.002)

        threads = [threading.Thread(target=submit_some, args=(seed,)) for seed in range(4)]
        stalled = generation_of([1], 10_000, deadline=time.monotonic() + 1.0, max_backlog=2)
        submit_to(driven.group, [stalled])
        for thread in threads:
            thread.start()
        await asyncio.sleep(0.01)
        cell.seconds = SLOW_S
        await until(lambda: driven.driver.kind == "thread")
        cell.seconds = 0.0
        for thread in threads:
            await asyncio.to_thread(thread.join, PATIENCE_S)
        await until_over(*everyone, stalled)
        assert kinds_of(stalled)[-1] is DeadlineExceeded
        assert_answered(*[row for row in everyone if row not in cancelled])
        for row in cancelled:
            assert_same(received(row), expected(row)[: len(received(row))])
        await until(lambda: not driven.group.active)
        assert_counted_out(driven.group)
    assert not driven.failed


# Faults.


async def stalled_stream(driven: Driven, deadline: float | None = None) -> Row:
    """Return a row that has been suspended for its slow reader.

    With a thread it has more tokens than its bound: it is suspended once the loop has delivered as many.
    """
    row = generation_of([1], 10**9, deadline=deadline, max_backlog=2, wants_logprobs=False)
    submit_to(driven.group, [row])
    await until(lambda: received(row) and not driven.engine.facts.num_active)
    return row


@both_kinds
async def test_fault_ends_all_rows_and_is_reported_once(kind: Kind) -> None:
    cell = FakeCell()
    async with driving(kind, cell, slots=2) as driven:
        with capture_logs() as logs:
            stalled = await stalled_stream(driven)
            cell.is_faulty = True
            rows = [generation_of([1], 50), last_of(LONG), score_of(LONG), last_of([2])]
            for row in rows:
                try:
                    submit_to(driven.group, [row])
                except ModelFailure as failure:  # the engine has been quicker
                    row.receiver.receive(failure)
                    row.is_over = True
            await until_over(stalled, *rows)
        assert [kinds_of(row) for row in rows] == [[ModelFailure]] * 4
        assert kinds_of(stalled)[-2:] == [Generated, ModelFailure]
        assert driven.failed == [driven.engine]
        assert driven.group.has_failed
        [line] = logs
        assert (line["event"], line["model"], line["log_level"]) == ("engine stopped", "fake", "error")
        assert isinstance(line["exc_info"], ZeroDivisionError)
        with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
            submit_to(driven.group, [last_of([1])])


@both_kinds
async def test_fault_is_not_logged_as_one_of_the_call_that_was_there(kind: Kind) -> None:
    """The calls of many callers run in the same turn."""
    cell = FakeCell()
    cell.is_faulty = True
    async with driving(kind, cell) as driven:
        with capture_logs(processors=[merge_contextvars]) as logs, bound_contextvars(request_id="mine"):
            with pytest.raises(ModelFailure):
                await run_one(driven.group, REQUEST, ANYONE)
            await until(lambda: driven.failed)
    [line] = logs
    assert line["event"] == "engine stopped"
    assert "request_id" not in line


@both_kinds
async def test_rows_that_raced_past_the_check_of_a_failed_engine_are_ended(kind: Kind) -> None:
    cell = FakeCell()
    cell.is_faulty = True
    async with driving(kind, cell) as driven:
        with capture_logs():
            with pytest.raises(ModelFailure):
                await run_one(driven.group, REQUEST, ANYONE)
            await until(lambda: driven.failed)
            for number in range(3):
                late = [last_of([1]), generation_of([1], 5)]
                if number:
                    await asyncio.to_thread(driven.engine.inbox.put, Submit(late))
                else:
                    driven.engine.inbox.put(Submit(late))
                await until_over(*late)
                assert [kinds_of(row) for row in late] == [[ModelFailure]] * 2
        assert driven.failed == [driven.engine]


@both_kinds
async def test_failed_engine_sleeps_although_deadlines_have_passed(kind: Kind) -> None:
    cell = FakeCell()
    async with driving(kind, cell) as driven:
        stalled = await stalled_stream(driven, deadline=time.monotonic() + 0.5)
        cell.is_faulty = True
        with capture_logs(), pytest.raises(ModelFailure):
            await run_one(driven.group, REQUEST, ANYONE)
        await asyncio.sleep(0.6)
        assert kinds_of(stalled)[-1] is ModelFailure
        assert driven.failures <= 3


@both_kinds
async def test_failing_ticks_end_no_engine(kind: Kind) -> None:
    async with driving(kind, FakeCell(failures=[0, 2])) as driven:
        outcomes = []
        for _ in range(4):
            try:
                await run_one(driven.group, REQUEST, ANYONE)
            except ModelFailure:
                outcomes.append("failed")
            else:
                outcomes.append("answered")
        assert outcomes == ["failed", "answered", "failed", "answered"]
        assert not driven.failed
