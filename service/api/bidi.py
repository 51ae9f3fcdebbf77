"""Bidirectional streams: one concurrent coroutine per request, which writes its responses."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from grpc import aio

from service.api.parsing import Malformed
from service.api.yielding import yield_before_write

Request = TypeVar("Request")
Response = TypeVar("Response")
Write = Callable[[Response], Awaitable[None]]


class Turns:
    """FIFO lock that is nearly free when uncontended.

    Usage:

        if turns.is_taken:
            await turns.wait()
        turns.is_taken = True
        try:
            ...
        finally:
            turns.pass_on()
    """

    __slots__ = ("_waiting", "is_taken")

    def __init__(self) -> None:
        self.is_taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait until the turn is passed on to this task."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the turn arrived together with the cancellation
                self.pass_on()
            raise

    def pass_on(self) -> None:
        """Wake the next waiter, for which the turn stays taken, or release the turn."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.is_taken = False


class _Writer(Generic[Response]):
    """Writes the responses of one call one at a time, as gRPC requires.

    Args:
        context: context of the call.
    """

    __slots__ = ("_context", "_turns")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._turns = Turns()

    async def write(self, response: Response) -> None:
        """Write a response after the responses that were ready earlier."""
        turns = self._turns
        if turns.is_taken:
            await turns.wait()
        turns.is_taken = True
        try:
            await yield_before_write()
            await self._context.write(response)
        finally:
            turns.pass_on()

    async def close(self) -> None:
        """Wait for pending writes, and refuse later ones by keeping the turn.

        A call must not end with an error while a write is pending: gRPC's core then refuses to send
        the status, and the client waits for ever.
        """
        if self._turns.is_taken:
            await self._turns.wait()
        self._turns.is_taken = True


async def serve_stream(
    context: Any, max_in_flight: int, answer: Callable[[Request, Write[Response]], Awaitable[None]]
) -> None:
    """Read requests until the client half-closes, and wait until each has been answered.

    Requests start in the order they arrive. Reading pauses while `max_in_flight` requests are open. An error
    ends the call after the responses that were ready before it.

    Args:
        context: context of the call.
        max_in_flight: maximum of requests that are read and not yet answered.
        answer: answers one request through the write function it is passed, which waits until written.
    """
    writer = _Writer[Response](context)
    num_open, has_ended = 0, asyncio.Event()

    async def answer_one(request: Request) -> None:
        nonlocal num_open
        try:
            await answer(request, writer.write)
        except Exception:
            await writer.close()
            raise
        finally:
            num_open -= 1
            has_ended.set()

    try:
        async with asyncio.TaskGroup() as group:
            while (request := await context.read()) is not aio.EOF:
                if type(request) is Malformed:
                    await writer.close()
                    raise request.error()
                num_open += 1
                group.create_task(answer_one(request))
                while num_open >= max_in_flight:
                    has_ended.clear()
                    await has_ended.wait()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
