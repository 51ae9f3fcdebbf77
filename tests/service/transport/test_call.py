"""service.transport.call: what a handler reads and writes, and which status its client gets."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from service.transport.call import Call, CallBroken, Handler
from service.transport.server import Server
from tests.service.transport.builders import PATIENCE_S, Running, channel_to, running_server

METHOD = "/test/Method"
BIG = bytes(1 << 20)


class Panic(BaseException):
    """Stands for the panic of a library in Rust."""


async def status(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status of a call whose messages are dropped."""
    with pytest.raises(aio.AioRpcError) as end:
        await call if not hasattr(call, "__aiter__") else [one async for one in call]
    return end.value.code(), end.value.details() or ""


def serving(handler: Handler) -> Any:
    return running_server(Server([]), (METHOD, handler))


def unary(running: Running, **options: Any) -> Any:
    return running.channel.unary_unary(METHOD)(b"message", **options)


def stream(running: Running) -> Any:
    return running.channel.stream_stream(METHOD)()


async def test_handler_reads_and_writes_until_the_client_sends_no_more() -> None:
    async def double(call: Call) -> bytes:
        while (message := await call.read()) is not None:
            await call.write(2 * message)
        return b"end"

    async with serving(double) as running:
        call = stream(running)
        for message in (b"a", b"", BIG):
            await call.write(message)
            assert await call.read() == 2 * message
        await call.done_writing()
        assert [await call.read(), await call.read()] == [b"end", aio.EOF]
        assert await call.code() is grpc.StatusCode.OK


async def test_messages_are_serialized_and_the_answer_need_not_wait_for_requests() -> None:
    async def count(call: Call) -> None:
        for number in range(3):
            await call.write(number)

    server = Server([])
    server.add("/test/Count", count, lambda number: str(number).encode())
    async with running_server(server) as running:
        assert [one async for one in running.channel.stream_stream("/test/Count")()] == [b"0", b"1", b"2"]


async def test_handler_knows_metadata_peer_and_time_left() -> None:
    seen: list[Any] = []

    async def look(call: Call) -> bytes:
        seen.append((dict(call.invocation_metadata()), call.peer(), call.time_remaining()))
        call.set_trailing_metadata((("k", "v"), ("k-bin", b"\xff")))
        return b""

    async with serving(look) as running:
        call = unary(running, metadata=(("a", "b"), ("a-bin", b"\xfe")))
        await call
        assert dict(await call.trailing_metadata()) == {"k": "v", "k-bin": b"\xff"}
        await unary(running, timeout=50)
    (metadata, peer, none), (_, _, left) = seen
    assert (metadata["a"], metadata["a-bin"]) == ("b", b"\xfe")
    assert peer.startswith("ipv4:127.0.0.1:")
    assert none is None
    assert 40 < left <= 51


async def test_abort_has_the_last_word() -> None:
    async def abort(call: Call) -> bytes:
        call.set_trailing_metadata((("k", "before"),))
        await call.abort(grpc.StatusCode.DATA_LOSS, "lone \ud800", (("k", "after"),))
        return b"never"

    async with serving(abort) as running:
        call = unary(running)
        assert await status(call) == (grpc.StatusCode.DATA_LOSS, "lone \\ud800")
        assert dict(await call.trailing_metadata()) == {"k": "after"}


@pytest.mark.parametrize("kind", [ZeroDivisionError, Panic])
async def test_unexpected_error_is_unknown_and_its_text_is_not_sent(kind: type[BaseException]) -> None:
    reported: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def fail(_: Call) -> bytes:
        raise kind("row 17")

    async with serving(fail) as running:
        code, details = await status(unary(running))
        assert (code, "row 17" in details) == (grpc.StatusCode.UNKNOWN, False)
        await running.server.calls_ended()
    loop.set_exception_handler(None)
    assert [type(error) for error in reported] == [kind]


async def test_task_that_others_cancel_ends_as_cancelled_or_with_the_status_of_an_abort() -> None:
    tasks: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    async def wait(call: Call) -> bytes:
        tasks.put_nowait(asyncio.current_task())  # type: ignore[arg-type]
        message = await call.read()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if message == b"abort":
                await call.abort(grpc.StatusCode.ABORTED, "instead")
            raise
        return b"never"

    async with serving(wait) as running:
        for message, expected in ((b"", grpc.StatusCode.CANCELLED), (b"abort", grpc.StatusCode.ABORTED)):
            call = running.channel.unary_unary(METHOD)(message)
            task = await tasks.get()
            while running.server.calls and not call.done():
                await asyncio.sleep(0.001)
                task.cancel()
            assert (await status(call))[0] is expected


async def test_status_is_sent_where_the_task_is_cancelled_while_it_sends_it() -> None:
    """The message before the status waits for its client, who reads it only after the cancellations."""

    async def write_and_abort(call: Call) -> None:
        writing = asyncio.ensure_future(call.write(64 * BIG))
        tasks.put_nowait(asyncio.current_task())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        writing.cancel()
        await call.abort(grpc.StatusCode.ABORTED, "for good")

    tasks: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
    async with serving(write_and_abort) as running, channel_to(f"127.0.0.1:{running.port}") as channel:
        call = channel.unary_stream(METHOD)(b"")
        task = await tasks.get()
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        assert len(await call.read()) == 64 * len(BIG)
        assert (await call.code(), await call.details()) == (grpc.StatusCode.ABORTED, "for good")


@pytest.mark.parametrize("end", ["cancel", "deadline", "close"])
async def test_end_of_the_client_cancels_the_task(end: str) -> None:
    ended: asyncio.Queue[BaseException] = asyncio.Queue()
    begun = asyncio.Event()

    async def wait(call: Call) -> None:
        begun.set()
        try:
            await call.write(b"first")
            await call.read()
            await asyncio.Event().wait()
        except BaseException as error:
            ended.put_nowait(error)
            raise

    async with serving(wait) as running:
        async with channel_to(f"127.0.0.1:{running.port}") as channel:
            call = channel.unary_stream(METHOD)(b"", timeout=0.1 if end == "deadline" else None)
            await begun.wait()
            if end == "cancel":
                call.cancel()
            elif end == "deadline":
                assert (await status(call))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert isinstance(await ended.get(), asyncio.CancelledError)
        await running.server.calls_ended()


async def test_write_to_a_client_that_has_gone_is_broken_and_reads_end() -> None:
    """The handler goes on though its task is cancelled."""
    outcome: asyncio.Queue[object] = asyncio.Queue()
    begun = asyncio.Event()

    async def go_on(call: Call) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcome.put_nowait(await call.read())
            try:
                await call.write(b"late")
            except CallBroken as error:
                outcome.put_nowait(error)

    async with serving(go_on) as running:
        call = stream(running)
        await begun.wait()
        call.cancel()
        assert await outcome.get() is None
        assert isinstance(await outcome.get(), CallBroken)
        await running.server.calls_ended()


async def test_writes_wait_for_a_client_that_does_not_read_and_end_with_it() -> None:
    num_written = 0

    async def flood(call: Call) -> None:
        nonlocal num_written
        while True:
            await call.write(BIG)
            num_written += 1

    async with serving(flood) as running:
        call = running.channel.unary_stream(METHOD)(b"")
        assert await call.read() == BIG
        await asyncio.sleep(0.05)
        assert num_written < 20
        call.cancel()
        await running.server.calls_ended()


async def test_ended_calls_leave_nothing_for_the_collector() -> None:
    """Full collections are rare in the server."""
    calls: list[weakref.ref[Any]] = []
    begun: asyncio.Queue[None] = asyncio.Queue()

    class Held:
        """Whatever a handler holds."""

    async def act(call: Call) -> bytes:
        held = Held()
        calls.append(weakref.ref(held))
        begun.put_nowait(None)
        if (message := await call.read()) == b"abort":
            await call.abort(grpc.StatusCode.ABORTED, "")
        if message == b"hang":
            await asyncio.Event().wait()
        await call.write(b"first")
        return b""

    async with serving(act) as running:
        gc.collect()
        gc.disable()
        try:
            for message in (b"", b"abort", b"hang") * 5:
                call = running.channel.unary_stream(METHOD)(message)
                await begun.get()
                if message == b"hang":
                    call.cancel()
                await rest_of(call)
            await running.server.calls_ended()
            await asyncio.sleep(0)
            assert [one() for one in calls if one() is not None] == []
        finally:
            gc.enable()


async def test_call_that_ends_before_its_task_begins_leaves_nothing_for_the_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, is_started = Call.start, asyncio.Event()

    def start_and_close(self: Call, handler: Handler) -> "asyncio.Task[None]":
        task = start(self, handler)
        self._close()
        is_started.set()
        return task

    async def never(_: Call) -> bytes:
        raise AssertionError

    async with serving(never) as running:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(Call, "start", start_and_close)
                call = unary(running)
                await is_started.wait()
            call.cancel()
            await running.server.calls_ended()
            await running.server.stop(PATIENCE_S)
            gc.collect()
            assert [one for one in gc.garbage if isinstance(one, Call)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


async def rest_of(call: AsyncIterator[bytes]) -> None:
    try:
        async for _ in call:
            pass
    except (aio.AioRpcError, asyncio.CancelledError):
        pass


async def test_many_calls_at_once_are_all_answered() -> None:
    async def answer(call: Call) -> bytes | None:
        return await call.read()

    async with serving(answer) as running, asyncio.timeout(PATIENCE_S):
        ask = running.channel.unary_unary(METHOD)
        numbers = [str(number).encode() for number in range(1000)]
        assert await asyncio.gather(*map(ask, numbers)) == numbers
