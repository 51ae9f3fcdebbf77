"""service.transport.server: which calls are answered, and how a server stops or is lost."""

import asyncio
from pathlib import Path

import grpc
import pytest
import trustme
from grpc import aio

from service.transport.call import Call
from service.transport.loop import CompletionLoop
from service.transport.server import Server
from tests.raw import NOT_UTF8, status_of
from tests.service.transport.builders import (
    ALONE,
    ECHO,
    PATIENCE_S,
    BreakingServer,
    add_echo,
    channel_to,
    running_server,
)

UNIMPLEMENTED = b"12"
CANCELLED = grpc.StatusCode.CANCELLED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def test_any_path_that_is_no_method_is_unimplemented() -> None:
    async with running_server(Server([])) as running:
        before = running.stream()
        assert await before.read() == b"x"
        for path in (NOT_UTF8, b"", b"/\0", b"/test.Echo/\xc3", b"\xff" * 5000, b"/no/such"):
            asked = (status_of("127.0.0.1", running.port, path, times=3) for _ in range(4))
            assert await asyncio.gather(*asked) == [[UNIMPLEMENTED] * 3] * 4
        assert not running.server.lost.done()
        running.release.set()
        assert [await before.read(), await before.read()] == [b"end", aio.EOF]
        assert [one async for one in running.stream()] == [b"x", b"end"]


async def test_failure_to_accept_is_told_and_calls_go_on() -> None:
    async with running_server(BreakingServer([])) as running:
        call = running.stream()
        assert await call.read() == b"x"
        assert await status_of("127.0.0.1", running.port, b"/no/such") == [UNIMPLEMENTED]
        assert isinstance(await running.server.lost, ValueError)
        stopping = asyncio.create_task(running.server.stop(PATIENCE_S))
        running.release.set()
        assert [await call.read(), await call.read()] == [b"end", aio.EOF]
        await stopping


async def test_call_that_cannot_be_started_is_reported_and_the_next_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, reported = asyncio.get_running_loop(), []

    def fail(*_: object) -> None:
        raise MemoryError

    async with running_server(Server([])) as running:
        running.release.set()
        with monkeypatch.context() as patch:
            patch.setattr(Call, "start", fail)
            loop.set_exception_handler(lambda _, context: reported.append(type(context["exception"])))
            with pytest.raises(aio.AioRpcError):
                await running.stream().read()
            loop.set_exception_handler(None)
        assert reported == [MemoryError]
        assert [one async for one in running.stream()] == [b"x", b"end"]


async def test_stop_is_no_loss_and_waits_for_calls() -> None:
    async with running_server(Server([])) as running:
        call = running.stream()
        assert await call.read() == b"x"
        stopping = asyncio.create_task(running.server.stop(PATIENCE_S))
        with pytest.raises(aio.AioRpcError) as refusal:
            async with channel_to(f"127.0.0.1:{running.port}") as late:
                await late.unary_unary(ECHO)(b"")
        assert refusal.value.code() is UNAVAILABLE
        assert not stopping.done()
        running.release.set()
        assert [await call.read(), await call.read()] == [b"end", aio.EOF]
        await stopping
        assert not running.server.lost.done()


async def test_call_that_arrives_while_stopping_gets_an_answer() -> None:
    """Its connection is from before, and has another call."""
    async with running_server(Server([])) as running:
        assert await running.stream().read() == b"x"
        stopping = asyncio.create_task(running.server.stop(PATIENCE_S))
        late = [asyncio.ensure_future(rest_of(running.stream())) for _ in range(20)]
        running.release.set()
        for answer in await asyncio.gather(*late):
            assert answer in ([b"x", b"end"], CANCELLED, UNAVAILABLE)
        await stopping


async def rest_of(call: "aio.UnaryStreamCall[bytes, bytes]") -> list[bytes] | grpc.StatusCode:
    try:
        return [one async for one in call]
    except aio.AioRpcError as error:
        return error.code()


async def test_stop_with_a_shorter_grace_shortens_that_of_another() -> None:
    async with running_server(Server([])) as running:
        call = running.stream()
        assert await call.read() == b"x"
        stopping = asyncio.create_task(running.server.stop(1e6))
        await asyncio.sleep(0)
        await running.server.stop(0.01)
        await stopping
        with pytest.raises(aio.AioRpcError) as end:
            await call.read()
        assert end.value.code() in (CANCELLED, UNAVAILABLE)


async def test_stop_that_is_cancelled_cancels_no_call() -> None:
    async with running_server(Server([])) as running:
        call = running.stream()
        assert await call.read() == b"x"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await running.server.stop(0.05)
        await asyncio.sleep(0.06)
        running.release.set()
        assert await call.read() == b"end"


async def test_server_that_was_not_started_stops_at_once() -> None:
    async with asyncio.timeout(PATIENCE_S):
        await Server([]).stop(1e6)


async def test_server_that_has_stopped_stops_at_once() -> None:
    async with running_server(Server([])) as running:
        for _ in range(3):
            await running.server.stop(1e6)
        await running.server.calls_ended()


async def test_servers_one_after_the_other_have_the_same_address(tmp_path: Path) -> None:
    for address in (f"unix:{tmp_path}/socket", "127.0.0.1:0"):
        found = address
        for _ in range(3):
            server, release = Server([("grpc.so_reuseport", 0)]), asyncio.Event()
            add_echo(server, release)
            release.set()
            port = server.add_port(found, None)
            found = address if address.startswith("unix:") else f"127.0.0.1:{port}"
            server.start()
            async with channel_to(found) as channel:
                assert [one async for one in channel.unary_stream(ECHO)(b"x")] == [b"x", b"end"]
            await server.stop(0)


async def test_address_that_is_taken_is_named() -> None:
    async with running_server(Server([("grpc.so_reuseport", 0)])) as running:
        with pytest.raises(RuntimeError, match=f"127.0.0.1:{running.port}"):
            Server([("grpc.so_reuseport", 0)]).add_port(f"127.0.0.1:{running.port}", None)


async def test_calls_come_through_tls() -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    async with running_server(Server([]), credentials=credentials) as running:
        running.release.set()
        trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with channel_to(f"localhost:{running.port}", trusted) as channel:
            assert [one async for one in channel.unary_stream(ECHO)(b"x")] == [b"x", b"end"]


async def test_compressed_message_is_read_and_too_large_a_one_refused() -> None:
    async def size(call: Call) -> bytes:
        return str(len(await call.read() or b"")).encode()

    server = Server([("grpc.max_receive_message_length", 1 << 20)])
    async with running_server(server, ("/test/Size", size)) as running:
        ask = running.channel.unary_unary("/test/Size")
        assert await ask(bytes(1 << 19), compression=grpc.Compression.Gzip) == str(1 << 19).encode()
        with pytest.raises(aio.AioRpcError) as refusal:
            await ask(bytes(1 << 21))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await ask(b"12") == b"2"


def test_another_event_loop_is_refused() -> None:
    async def make() -> None:
        Server([])

    with pytest.raises(TypeError, match="expected a CompletionLoop"), asyncio.Runner() as runner:
        runner.run(make())


def test_loop_with_a_running_server_and_calls_is_closed() -> None:
    """The program ends with an error: nobody has stopped the server."""
    servers: list[Server] = []
    channels: list[grpc.Channel] = []
    is_called = asyncio.Event()

    async def hang(call: Call) -> None:
        is_called.set()
        await call.read()
        await asyncio.Event().wait()

    async def fail() -> None:
        server = Server([])
        servers.append(server)
        server.add("/test/Hang", hang)
        port = server.add_port("127.0.0.1:0", None)
        server.start()
        channels.append(grpc.insecure_channel(f"127.0.0.1:{port}", options=ALONE))
        answers.append(channels[0].unary_unary("/test/Hang").future(b"", timeout=PATIENCE_S))  # type: ignore[arg-type]
        async with asyncio.timeout(PATIENCE_S):
            await is_called.wait()
        raise ZeroDivisionError

    answers: list[grpc.Future[bytes]] = []
    with pytest.raises(ZeroDivisionError), asyncio.Runner(loop_factory=CompletionLoop) as runner:
        runner.run(fail())
    error = answers[0].exception(PATIENCE_S)
    assert isinstance(error, grpc.RpcError)
    channels[0].close()
    assert servers[0].calls == set()
