"""service.api.receiving, on calls whose messages come when the test sends them."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from service.api.held_bytes import HeldBytes, Holding
from service.api.receiving import MAX_S, SLOW_S, Receiving
from service.api.running import RunningCalls
from service.errors import BytesExhausted, DeadlineExceeded, ServiceError

MESSAGE_BYTES = 1 << 20


class Call:
    """A call that waits for one message, and the error that it was ended with."""

    def __init__(self, bench: "Bench", caller: str, is_only: bool) -> None:
        self.message: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.error: ServiceError | None = None
        self.caller = caller
        self.task = asyncio.create_task(self._run(bench, Holding(bench.held, caller), is_only))

    async def read(self) -> bytes:
        return await self.message

    def peer(self) -> str:
        return f"ipv4:{self.caller}"

    async def _run(self, bench: "Bench", holding: Holding, is_only: bool) -> bytes:
        task: Any = asyncio.current_task()
        try:
            return bytes(await bench.receiving.read(self, holding, is_only))
        except asyncio.CancelledError:
            self.error = bench.running.take_error(task)
            raise


class Bench:
    """Calls that wait, under a bound for a few messages."""

    def __init__(self) -> None:
        self.held = HeldBytes(8 * MESSAGE_BYTES)
        self.running = RunningCalls()
        self.is_short = False
        self.cut_off: set[str] = set()
        self.receiving = Receiving(self.running, MESSAGE_BYTES, self._is_short)
        self.receiving.cut_off = self.cut_off.update
        self.calls: list[Call] = []

    async def _is_short(self) -> bool:
        return self.is_short

    def call(self, caller: str = "caller", is_only: bool = True) -> Call:
        self.calls.append(call := Call(self, caller, is_only))
        return call

    async def after(self, seconds: float) -> None:
        """Let calls begin, and sweep so many seconds later."""
        await settled()
        self.receiving.sweep(time.monotonic() + seconds)
        await settled()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for call in bench.calls:
        call.task.cancel()
    await asyncio.gather(*(call.task for call in bench.calls), return_exceptions=True)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_message_that_comes_at_once_is_not_charged(bench: Bench) -> None:
    call = bench.call()
    await bench.after(SLOW_S / 2)
    assert bench.held.total == 0
    call.message.set_result(b"message")
    assert await call.task == b"message"


async def test_slow_message_is_charged_until_it_is_there(bench: Bench) -> None:
    call = bench.call()
    await bench.after(SLOW_S + 1)
    assert bench.held.total == MESSAGE_BYTES
    call.message.set_result(b"message")
    await call.task
    assert bench.held.total == 0


async def test_slow_calls_beyond_the_room_end_and_others_are_not_harmed(bench: Bench) -> None:
    calls = [bench.call() for _ in range(5)]
    await bench.after(SLOW_S + 1)
    newcomer = bench.call("newcomer")
    await bench.after(SLOW_S + 1)
    assert [type(call.error) for call in calls] == [type(None)] * 3 + [BytesExhausted] * 2
    assert newcomer.error is None
    newcomer.message.set_result(b"message")
    assert await newcomer.task == b"message"
    assert bench.held.total == 3 * MESSAGE_BYTES


async def test_message_that_does_not_come_ends_its_call(bench: Bench) -> None:
    call = bench.call()
    await bench.after(SLOW_S + 1)
    await bench.after(MAX_S + 1)
    assert isinstance(call.error, DeadlineExceeded)
    assert bench.held.total == 0


async def test_call_that_its_client_cancels_gives_its_charge_back(bench: Bench) -> None:
    call = bench.call()
    await bench.after(SLOW_S + 1)
    call.task.cancel()
    await settled()
    assert (call.error, bench.held.total) == (None, 0)


async def test_stream_may_wait_for_hours(bench: Bench) -> None:
    call = bench.call(is_only=False)
    await bench.after(SLOW_S + 1)
    await bench.after(10_000)
    assert (call.error, bench.held.total) == (None, 0)
    call.message.set_result(b"message")
    assert await call.task == b"message"


async def test_streams_of_the_host_with_most_end_where_memory_is_short_those_that_wait_least_first(
    bench: Bench,
) -> None:
    bench.is_short = True
    many = [bench.call(f"many:{number}", is_only=False) for number in range(20)]
    few = [bench.call("few:1", is_only=False) for _ in range(2)]
    await bench.after(SLOW_S + 1)
    bench.receiving.end_streams()
    await settled()
    assert [type(call.error) for call in many] == [type(None)] * 4 + [BytesExhausted] * 16
    assert [call.error for call in few] == [None, None]
    assert bench.cut_off == {f"ipv4:many:{number}" for number in range(4, 20)}


async def test_watch_ends_streams_where_memory_is_short(bench: Bench) -> None:
    bench.is_short = True
    call = bench.call(is_only=False)
    watching = asyncio.create_task(bench.receiving.watch())
    async with asyncio.timeout(20):
        await asyncio.wait({call.task})
    assert isinstance(call.error, BytesExhausted)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_watch_sweeps(bench: Bench) -> None:
    watching = asyncio.create_task(bench.receiving.watch())
    bench.call()
    async with asyncio.timeout(20):
        while not bench.held.total:  # noqa: ASYNC110 -- nothing tells of a sweep
            await asyncio.sleep(0.01)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
