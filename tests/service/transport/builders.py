"""Servers for tests of the transport, whose breaking the listener is tested with, too."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc import aio

from service.transport.call import Call, Handler, Serialize
from service.transport.server import Request, Server, _refuse

PATIENCE_S = 20.0
ECHO = "/test.Echo/Echo"
# A subchannel of its own for each channel: else grpcio shares connections between them.
ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))


def channel_to(address: str, credentials: grpc.ChannelCredentials | None = None) -> Any:
    """Return a channel with a connection of its own."""
    if credentials is None:
        return aio.insecure_channel(address, options=ALONE)
    return aio.secure_channel(address, credentials, options=ALONE)


class BreakingServer(Server):
    """A server that ceases to accept calls at the first one of a method that is not known."""

    def _accept(self, request: Request, handler: Handler, serialize: Serialize) -> None:
        breaks = handler is _refuse
        super()._accept(_ask_broken(request) if breaks else request, handler, serialize)


def _ask_broken(request: Request) -> Request:
    """Return a request that fails when it is made for the second time, as a fault of the core would."""
    num_asked = 0

    def ask_broken(take: Callable[[Any], None]) -> None:
        nonlocal num_asked
        num_asked += 1
        if num_asked > 1:
            raise ValueError("b'/\\xff'")
        request(take)

    return ask_broken


def add_echo(server: Server, release: asyncio.Event) -> None:
    """Add a method that answers its message with the same, and with another once it is released."""

    async def echo(call: Call) -> None:
        await call.write(await call.read())
        await release.wait()
        await call.write(b"end")

    server.add(ECHO, echo)


@dataclass(frozen=True)
class Running:
    """A server with a channel to it."""

    server: Server
    port: int
    channel: Any
    release: asyncio.Event

    def stream(self) -> Any:
        return self.channel.unary_stream(ECHO)(b"x")


@asynccontextmanager
async def running_server(
    server: Server, *handlers: tuple[str, Handler], credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Running]:
    """Run a server with the echo and other methods."""
    release = asyncio.Event()
    add_echo(server, release)
    for method, handler in handlers:
        server.add(method, handler)
    port = server.add_port("127.0.0.1:0", credentials)
    server.start()
    async with (
        asyncio.timeout(PATIENCE_S),
        channel_to(f"127.0.0.1:{port}") as channel,
    ):
        yield Running(server, port, channel, release)
    await server.stop(0)
