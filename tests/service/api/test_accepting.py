"""service.api.accepting: no path ends the accept loop, and an end of it is told.

Fails when grpcio has new names for what is overridden.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from service.api.accepting import Server, _Accepting
from tests.raw import NOT_UTF8, status_of

PATIENCE_S = 20.0
UNIMPLEMENTED = b"12"


class Breaking(_Accepting):
    """Breaks its accept loop at the first call of a method that is not known, as a fault would."""

    async def _refuse_unknown(self) -> None:
        await self._request_call()
        raise ValueError("b'/\\xff'")


class BreakingServer(Server):
    """A server that breaks."""

    def __init__(self, options: list[tuple[str, int]]) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost = self._loop.create_future()
        self._server = Breaking(self.lost, self._loop, None, (), (), tuple(options), None)


@dataclass(frozen=True)
class Running:
    """A server with one method, which streams until it is let go."""

    server: Server
    port: int
    channel: Any
    release: asyncio.Event

    def stream(self) -> Any:
        return self.channel.unary_stream("/test.Echo/Echo")(b"x")


def add_echo(server: Any, release: asyncio.Event) -> None:
    async def echo(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request
        await release.wait()
        yield b"end"

    handlers: dict[str, Any] = {"Echo": grpc.unary_stream_rpc_method_handler(echo)}
    server.add_registered_method_handlers("test.Echo", handlers)


async def started(server: Server) -> Running:
    release = asyncio.Event()
    add_echo(server, release)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return Running(server, port, aio.insecure_channel(f"127.0.0.1:{port}"), release)


@pytest_asyncio.fixture(loop_scope="session")
async def running() -> AsyncIterator[Running]:
    found = await started(Server([]))
    async with asyncio.timeout(PATIENCE_S):
        yield found
    await found.channel.close()
    await found.server.stop(0)


@pytest.mark.parametrize("path", [NOT_UTF8, b"", b"/\0", b"/test.Echo/\xc3", b"\xff" * 5000, b"/no/such"])
async def test_any_path_that_is_no_method_is_unimplemented(running: Running, path: bytes) -> None:
    before = running.stream()
    assert await before.read() == b"x"
    found = await asyncio.gather(*(status_of("127.0.0.1", running.port, path, times=3) for _ in range(4)))
    assert found == [[UNIMPLEMENTED] * 3] * 4
    assert not running.server.lost.done()
    running.release.set()
    assert [await before.read(), await before.read()] == [b"end", aio.EOF]
    assert [one async for one in running.stream()] == [b"x", b"end"]


async def test_stop_is_no_loss(running: Running) -> None:
    await running.server.stop(0)
    assert not running.server.lost.done()


async def test_end_of_the_accept_loop_is_told_and_calls_go_on() -> None:
    found = await started(BreakingServer([]))
    async with asyncio.timeout(PATIENCE_S):
        call = found.stream()
        assert await call.read() == b"x"
        await status_of("127.0.0.1", found.port, b"/no/such")
        assert isinstance(await found.server.lost, ValueError)
        with pytest.raises(ValueError, match="xff"):
            await found.server.stop(PATIENCE_S)
        found.release.set()
        assert [await call.read(), await call.read()] == [b"end", aio.EOF]
        await found.server.stop(PATIENCE_S)
    await found.channel.close()
