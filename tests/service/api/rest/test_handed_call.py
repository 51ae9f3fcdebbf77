"""service.api.rest.handed_call: calls between two event loops."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import pytest
import pytest_asyncio

from service.api.rest.handed_call import CallLoop, Ending, HttpClient
from service.api.running import RunningCalls
from service.errors import InvalidArgument
from service.transport.call import CallBroken

METHOD = "/a/B"


class Handlers:
    """Handlers of one method, as `Calls` has them."""

    def __init__(self, handler: Any) -> None:
        self.running = RunningCalls()
        self._handler = handler

    def handler_of(self, name: str) -> Any:
        assert name == METHOD
        return self._handler, lambda message: f"<{message}>".encode()


@pytest_asyncio.fixture
async def elsewhere() -> AsyncIterator[asyncio.AbstractEventLoop]:
    """The event loop of clients, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    await asyncio.to_thread(thread.join)
    loop.close()


async def run(
    elsewhere: asyncio.AbstractEventLoop,
    handler: Any,
    read: Callable[[], Coroutine[Any, Any, bytes]] | None = None,
    max_s: float = 10,
) -> tuple[Ending, list[bytes], Handlers]:
    """Run one call from the loop of clients; return its status and what was written there."""
    handlers, written = Handlers(handler), []
    calls: Any = handlers
    door = CallLoop(calls, asyncio.get_running_loop(), max_s)

    async def write(data: bytes) -> None:
        assert asyncio.get_running_loop() is elsewhere
        written.append(data)

    async def nothing() -> bytes:
        assert asyncio.get_running_loop() is elsewhere
        return b"message"

    client = HttpClient("ipv4:127.0.0.1:1", [("authorization", "x")], read or nothing, write)
    future = asyncio.run_coroutine_threadsafe(door.call(METHOD, client), elsewhere)
    return await asyncio.wrap_future(future), written, handlers


async def test_answer_of_a_handler_is_written_where_its_client_is(
    elsewhere: asyncio.AbstractEventLoop,
) -> None:
    home = asyncio.get_running_loop()

    async def handler(context: Any) -> bytes:
        assert asyncio.get_running_loop() is home
        assert (context.peer(), context.invocation_metadata()) == (
            "ipv4:127.0.0.1:1",
            [("authorization", "x")],
        )
        assert 9 < context.time_remaining() <= 10
        first, second = await context.read(), await context.read()
        assert second is None
        await context.write(1)
        return bytes(first)

    ending, written, _ = await run(elsewhere, handler)
    assert ending == Ending()
    assert written == [b"<1>", b"message"]


async def test_aborted_call_ends_with_its_status(elsewhere: asyncio.AbstractEventLoop) -> None:
    async def handler(context: Any) -> bytes:
        context.set_trailing_metadata((("a", "b"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
        raise AssertionError

    ending, written, _ = await run(elsewhere, handler)
    assert ending == Ending(grpc.StatusCode.NOT_FOUND, "nobody", (("a", "b"),))
    assert written == []


@pytest.mark.parametrize("error", [InvalidArgument("x", "y"), CallBroken()])
async def test_error_of_reading_reaches_the_handler(
    elsewhere: asyncio.AbstractEventLoop, error: Exception
) -> None:
    found: list[Exception] = []

    async def read() -> bytes:
        raise error

    async def handler(context: Any) -> bytes:
        try:
            await context.read()
        except Exception as raised:
            found.append(raised)
        return b""

    await run(elsewhere, handler, read)
    assert found == [error]


async def test_call_without_an_answer_in_time_is_ended(elsewhere: asyncio.AbstractEventLoop) -> None:
    errors: list[Any] = []

    async def handler(_: Any) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task: Any = asyncio.current_task()
            errors.append(calls.running.take_error(task))
            task.uncancel()
        return b""

    calls = Handlers(handler)
    anything: Any = calls
    door = CallLoop(anything, asyncio.get_running_loop(), 0.05)

    async def nothing(*_: Any) -> Any:
        return b""

    client = HttpClient("", [], nothing, nothing)
    async with asyncio.timeout(10):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(door.call(METHOD, client), elsewhere))
    assert "within 0.05 s (SEQSERVE_HTTP_REQUEST_SECONDS)" in str(errors[0])


async def test_cancelling_cancels_handler_and_reading(elsewhere: asyncio.AbstractEventLoop) -> None:
    has_begun, ended = threading.Event(), []
    is_over = asyncio.Event()

    async def read() -> bytes:
        has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("read")
        return b""

    async def handler(context: Any) -> bytes:
        try:
            await context.read()
        finally:
            ended.append("handler")
            is_over.set()
        return b""

    anything: Any = Handlers(handler)
    door = CallLoop(anything, asyncio.get_running_loop(), 10)
    client = HttpClient("", [], read, None)  # type: ignore[arg-type]  # not called
    future = asyncio.run_coroutine_threadsafe(door.call(METHOD, client), elsewhere)
    await asyncio.to_thread(has_begun.wait, 10)
    future.cancel()
    async with asyncio.timeout(10):
        await is_over.wait()
        while len(ended) < 2:  # noqa: ASYNC110 -- the other loop ends its part
            await asyncio.sleep(0.01)


async def test_function_is_asked_in_the_loop_of_the_calls(elsewhere: asyncio.AbstractEventLoop) -> None:
    anything: Any = Handlers(None)
    door = CallLoop(anything, asyncio.get_running_loop(), 10)
    asked = asyncio.run_coroutine_threadsafe(door.ask(threading.get_ident), elsewhere)
    assert await asyncio.wrap_future(asked) == threading.get_ident()
