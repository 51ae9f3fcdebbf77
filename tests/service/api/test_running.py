"""service.api.running: tasks of calls, and calls of a server."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import aio

from service.api.running import RunningCalls
from service.errors import Withdrawn
from tests.service.api.handlers import KINDS, PATIENCE_S, Bench, hanging, trailing_of
from tests.service.api.rich import status_in, unpack


class FakeContext:
    """A call's context that knows its peer."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


class Call:
    """A call that runs until the test ends it, and what it was ended by."""

    def __init__(self, running: RunningCalls, peer: str = "ipv4:10.0.0.1:1", method: str = "/A/B") -> None:
        self.running = running
        self.method = method
        self.peer = peer
        self.is_over = asyncio.Event()
        self.was_withdrawn = False
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        task: Any = asyncio.current_task()
        self.running.add(task, FakeContext(self.peer), self.method)
        try:
            await self.is_over.wait()
        except asyncio.CancelledError:
            self.was_withdrawn = isinstance(self.running.take_error(task), Withdrawn)
            raise
        finally:
            self.running.remove(task)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_idle_waits_for_every_call_that_was_added() -> None:
    running = RunningCalls()
    calls = [Call(running) for _ in range(3)]
    await settled()
    idle = asyncio.create_task(running.idle())
    for call in calls:
        assert not idle.done()
        call.is_over.set()
        await settled()
    await idle


async def test_running_calls_are_counted_by_method() -> None:
    running = RunningCalls()
    calls = [Call(running, method=method) for method in ("/A/B", "/A/C", "/A/C")]
    await settled()
    assert running.by_method() == {"/A/C": 2, "/A/B": 1}
    calls[0].is_over.set()
    await settled()
    assert running.by_method() == {"/A/C": 2}
    for call in calls:
        call.is_over.set()
    await running.idle()


async def test_call_that_begins_meanwhile_is_waited_for() -> None:
    running = RunningCalls()
    first = Call(running)
    await settled()
    idle = asyncio.create_task(running.idle())
    await settled()
    later = Call(running)
    first.is_over.set()
    await settled()
    assert not idle.done()
    later.is_over.set()
    await idle


async def test_withdrawn_calls_know_it_and_later_ones_do_not() -> None:
    running = RunningCalls()
    withdrawn = [Call(running) for _ in range(2)]
    await settled()
    running.withdraw()
    await settled()
    assert [call.was_withdrawn for call in withdrawn] == [True, True]
    await running.idle()
    later = Call(running)
    await settled()
    later.task.cancel()
    await settled()
    assert not later.was_withdrawn


async def test_call_that_is_ending_is_not_ended_again() -> None:
    running = RunningCalls()
    call = Call(running)
    await settled()
    running.note_ending(call.task)
    running.withdraw()
    await settled()
    assert (call.task.done(), call.was_withdrawn) == (False, False)
    call.is_over.set()
    await running.idle()


async def test_call_that_its_caller_cancels_is_not_withdrawn() -> None:
    running = RunningCalls()
    call = Call(running)
    await settled()
    call.task.cancel()
    await settled()
    assert (call.task.cancelled(), call.was_withdrawn) == (True, False)
    await running.idle()


# In a server.


async def test_nothing_runs_before_the_first_call(bench: Bench) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await bench.calls.running.idle()


async def test_idle_waits_for_the_last_call(bench: Bench) -> None:
    call = await hanging(bench, "UnaryUnary")
    await bench.call("UnaryUnary", b"fine")
    idle = asyncio.ensure_future(bench.calls.running.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await idle


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_withdrawn_call_gets_a_status_that_says_where_to_go_on(bench: Bench, kind: str) -> None:
    call = await hanging(bench, kind)
    bench.calls.running.withdraw()
    with pytest.raises(aio.AioRpcError) as refusal:
        async with asyncio.timeout(PATIENCE_S):
            [one async for one in call] if hasattr(call, "__aiter__") else await call
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert unpack(status_in(refusal.value))["ErrorInfo"].reason == "WITHDRAWN"
    assert bench.handlers.is_cancelled.is_set()
    assert await bench.count(kind, "UNAVAILABLE") == 1


async def test_withdrawn_call_gets_its_request_id_back(bench: Bench) -> None:
    reading = asyncio.ensure_future(trailing_of(bench, "UnaryUnary", b"hang", "mine"))
    async with asyncio.timeout(PATIENCE_S):
        await bench.handlers.is_waiting.wait()
    bench.calls.running.withdraw()
    assert (await reading)["x-request-id"] == "mine"


async def test_peers_are_those_of_the_calls_that_run() -> None:
    running = RunningCalls()
    first, second = Call(running), Call(running, "ipv6:%5B::1%5D:2")
    await settled()
    assert running.peers() == {"ipv4:10.0.0.1:1", "ipv6:%5B::1%5D:2"}
    first.is_over.set()
    await settled()
    assert running.peers() == {"ipv6:%5B::1%5D:2"}
    second.is_over.set()
    await settled()
    assert running.peers() == set()


async def test_calls_are_refused_and_counted_once_asked_for() -> None:
    running = RunningCalls()
    running.check_taken()
    assert running.num_refused == 0
    running.refuse_new()
    for _ in range(2):
        with pytest.raises(Withdrawn):
            running.check_taken()
    assert running.num_refused == 2
