"""Calls of HTTP clients, which run in the event loop of all calls under the same handlers as those of gRPC.

The client's side runs in the event loop of the HTTP port, in another thread: reading its message and writing
an answer are coroutines there, which the call awaits here. So access, limits, deadlines, metrics, traces and
the drain are those of gRPC, and a slow client holds back its own call alone.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc

from service.api.calls import Calls
from service.api.running import RunningCalls
from service.errors import DeadlineExceeded
from service.transport.call import Aborted, Handler, Metadata, Serialize

Value = TypeVar("Value")
Read = Callable[[], Coroutine[Any, Any, bytes]]
Write = Callable[[bytes], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class HttpClient:
    """The client's side of a call, in the event loop of the HTTP port.

    Attributes:
        peer: address, in the form of gRPC's peers.
        metadata: the headers that are metadata of the call.
        read: returns the call's only message.
        write: sends an answer, and returns once the connection takes another one.
    """

    peer: str
    metadata: Sequence[tuple[str, str]]
    read: Read
    write: Write


@dataclass(frozen=True, slots=True)
class Ending:
    """Status that a call has ended with.

    Attributes:
        code: code of the status.
        details: text of the status.
        trailing: metadata of the status.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailing: Metadata = ()


class CallLoop:
    """Runs calls of HTTP clients in the event loop of all calls.

    Args:
        calls: the handlers, and the calls that run.
        loop: event loop of the calls.
        max_s: seconds that a call may take, its stream of answers included.
    """

    def __init__(self, calls: Calls, loop: asyncio.AbstractEventLoop, max_s: float) -> None:
        self._calls = calls
        self._loop = loop
        self._max_s = max_s

    async def call(self, method: str, client: HttpClient) -> Ending:
        """Run a call from the event loop of the HTTP port; cancelling this cancels the call.

        Args:
            method: full name, as /package.Service/Method.
            client: the client's side.
        """
        handler, serialize = self._calls.handler_of(method)
        handed = _HandedCall(client, serialize, asyncio.get_running_loop(), self._max_s)
        running = handed.run(handler, self._calls.running)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(running, self._loop))

    async def ask(self, function: Callable[[], Value]) -> Value:
        """Return what a function returns in the event loop of the calls; raise what it raises."""

        async def asked() -> Value:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asked(), self._loop))


class _HandedCall:
    """Context of a call, with what handlers use of `service.transport.call.Call`.

    Args:
        client: the client's side.
        serialize: makes bytes of the messages that are written.
        loop: event loop of the client's side.
        max_s: seconds that the call may take.
    """

    def __init__(
        self, client: HttpClient, serialize: Serialize, loop: asyncio.AbstractEventLoop, max_s: float
    ) -> None:
        self._client = client
        self._serialize = serialize
        self._client_loop = loop
        self._max_s = max_s
        self._ends_at = time.monotonic() + max_s
        self._has_read = False
        self._ending: Ending | None = None
        self._trailing: Metadata = ()

    @property
    def has_one_message(self) -> bool:
        """Return True: a request over HTTP is one message, also of a method that takes a stream of them."""
        return True

    async def run(self, handler: Handler, running: RunningCalls) -> Ending:
        """Run the handler, and send what it returns; return the status."""
        task: Any = asyncio.current_task()
        error = DeadlineExceeded(
            f"expected an answer within {self._max_s:g} s (SEQSERVE_HTTP_REQUEST_SECONDS), found none"
        )
        timer = asyncio.get_running_loop().call_at(self._ends_at, running.end, task, error)
        context: Any = self
        try:
            message = await handler(context)
        except Aborted:
            assert self._ending is not None, "abort sets it"
            return self._ending
        finally:
            timer.cancel()
        if message is not None:
            await self._there(self._client.write(message))
        return Ending(trailing=self._trailing)

    def invocation_metadata(self) -> Metadata:
        """Return the client's metadata."""
        return self._client.metadata

    def peer(self) -> str:
        """Return the client's address."""
        return self._client.peer

    def time_remaining(self) -> float:
        """Return the seconds until the deadline."""
        return max(0.0, self._ends_at - time.monotonic())

    def code(self) -> grpc.StatusCode | None:
        """Return the code that the call was aborted with, None before."""
        return None if self._ending is None else self._ending.code

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set the metadata of the status."""
        self._trailing = metadata

    async def read(self) -> bytes | None:
        """Return the client's only message, and None after it."""
        if self._has_read:
            return None
        self._has_read = True
        return await self._there(self._client.read())

    async def write(self, message: Any) -> None:
        """Send a message, and wait until the connection takes another one."""
        await self._there(self._client.write(self._serialize(message)))

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        """End the call with a status."""
        self._ending = Ending(code, details, trailing_metadata or self._trailing)
        raise Aborted

    async def _there(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the client's event loop; cancelling this cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._client_loop))
