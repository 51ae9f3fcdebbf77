"""service.tasks.workers: one thread, which a first function holds while others wait."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from service.engine.request import ANYONE, Caller
from service.errors import DeadlineExceeded
from service.tasks.workers import Workers

PATIENCE_S = 20


class Held:
    """Workers with one thread, held until it is released.

    Attributes:
        ran: what has run, in order.
    """

    def __init__(self) -> None:
        self.workers = Workers(1)
        [self.thread] = self.workers._threads.free
        self.ran: list[str] = []
        self._release = threading.Event()
        self._holding: asyncio.Task[bool] | None = None

    async def hold(self) -> None:
        began = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> bool:
            loop.call_soon_threadsafe(began.set)
            return self._release.wait(PATIENCE_S)

        self._holding = asyncio.create_task(self.workers.run(ANYONE, wait))
        await began.wait()

    def cancel_first(self) -> None:
        assert self._holding is not None
        self._holding.cancel()

    async def submit(self, name: str, deadline: float | None = None) -> asyncio.Task[None]:
        """Have a name appended to `ran`, for the client that is its first letter."""
        caller = Caller(deadline, name[0])
        task = asyncio.create_task(self.workers.run(caller, self.ran.append, name))
        await asyncio.sleep(0)
        return task

    def release(self) -> None:
        self._release.set()


@pytest_asyncio.fixture
async def held() -> AsyncIterator[Held]:
    made = Held()
    await made.hold()
    yield made
    made.release()


async def test_result_and_error_are_those_of_the_function() -> None:
    workers = Workers(1)
    assert await workers.run(ANYONE, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(ANYONE, divmod, 7, 0)
    assert await workers.run(ANYONE, max, 1, 2) == 2


async def test_functions_run_beside_the_event_loop() -> None:
    assert await Workers(1).run(ANYONE, threading.get_ident) != threading.get_ident()


async def test_as_many_functions_run_at_a_time_as_there_are_threads() -> None:
    workers, together = Workers(3), threading.Barrier(3)
    for _ in range(2):
        await asyncio.gather(*(workers.run(ANYONE, together.wait, PATIENCE_S) for _ in range(3)))
    assert len(workers._threads.free) == 3


def allow_threads(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let so many threads be started and no more."""
    start, left = threading.Thread.start, iter(range(number))

    def start_if_left(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_left)


async def test_threads_that_can_be_started_serve_in_the_place_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_threads(monkeypatch, 2)
    with capture_logs() as logs:
        workers = Workers(4)
    assert [(line["event"], line["workers"], line["threads"]) for line in logs] == [
        ("fewer workers than threads", 2, 4)
    ]
    results = await asyncio.gather(*(workers.run(ANYONE, divmod, number, 3) for number in range(20)))
    assert results == [divmod(number, 3) for number in range(20)]


def test_workers_without_a_thread_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_threads(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Workers(4)


async def test_clients_take_turns(held: Held) -> None:
    tasks = [await held.submit(name) for name in ("a1", "a2", "a3", "b1", "b2")]
    held.release()
    await asyncio.gather(*tasks)
    assert held.ran == ["a1", "b1", "a2", "b2", "a3"]


async def test_cancelled_call_leaves_the_line_at_once(held: Held) -> None:
    first, second = await held.submit("a1"), await held.submit("a2")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.release()
    await second
    assert held.ran == ["a2"]


async def test_passed_deadline_ends_the_wait_while_the_thread_is_held(held: Held) -> None:
    task = await held.submit("a1", time.monotonic() + 0.02)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(task, PATIENCE_S)
    assert held.ran == []


async def test_after_the_deadline_nothing_is_begun() -> None:
    with pytest.raises(DeadlineExceeded):
        await Workers(1).run(Caller(time.monotonic() - 1), pytest.fail, "it was begun")


async def test_thread_of_a_cancelled_call_is_free_when_its_function_has_ended(held: Held) -> None:
    held.cancel_first()
    task = await held.submit("a1")
    assert not task.done()
    held.release()
    await asyncio.wait_for(task, PATIENCE_S)
    assert held.ran == ["a1"]


async def test_turn_of_a_call_that_is_cancelled_as_it_comes_is_passed_on(held: Held) -> None:
    first, second = await held.submit("a1"), await held.submit("b1")
    held.workers._threads.pass_on(held.thread)  # a1's turn has come, but its task has not run yet
    first.cancel()
    held.release()
    await asyncio.wait_for(second, PATIENCE_S)
    assert held.ran == ["b1"]
