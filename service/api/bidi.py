"""Bidirectional streams: one concurrent coroutine per request, which writes its responses."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from service.api.requests import Requests
from service.api.yielding import yield_before_write
from service.errors import ServiceError

# Time that a message waits for the room that earlier requests of its stream hold.
MAX_ROOM_S = 10.0

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


class _Answering(Generic[Request, Response]):
    """Open requests of one call.

    Args:
        requests: requests of the call.
        writer: writes their responses.
        max_open: maximum of requests that are read and not yet answered.
        answer: answers one request.
    """

    def __init__(
        self,
        requests: Requests,
        writer: _Writer[Response],
        max_open: int,
        answer: Callable[[Request, Write[Response]], Awaitable[None]],
    ) -> None:
        self._requests = requests
        self._writer = writer
        self._max_open = max_open
        self._answer = answer
        self._num_open = 0
        self._has_ended = asyncio.Event()

    async def begin_all(self, group: asyncio.TaskGroup) -> ServiceError | None:
        """Begin each request as it comes; return the error of one that was refused, None at their end."""
        requests = self._requests
        try:
            while (size := await requests.read()) is not None:
                await self._room()
                group.create_task(self._answer_one(await requests.take(), size))
                self._num_open += 1
                while self._num_open >= self._max_open:
                    await self._one_end()
        except ServiceError as error:
            # Its frames hold the message, for as long as earlier requests are open.
            return error.with_traceback(None)
        return None

    async def _room(self) -> None:
        """Wait while earlier requests hold the room of the next one, for a bounded time."""
        if self._requests.has_room():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_ROOM_S):
                while self._num_open and not self._requests.has_room():
                    await self._one_end()

    async def _one_end(self) -> None:
        self._has_ended.clear()
        await self._has_ended.wait()

    async def _answer_one(self, request: Request, size: int) -> None:
        try:
            await self._answer(request, self._writer.write)
        except Exception:
            await self._writer.close()
            raise
        finally:
            self._num_open -= 1
            self._requests.give_back(size)
            self._has_ended.set()


async def serve_stream(
    requests: Requests,
    context: Any,
    max_in_flight: int,
    answer: Callable[[Request, Write[Response]], Awaitable[None]],
) -> None:
    """Read requests until the client half-closes, and wait until each has been answered.

    Requests start in the order they arrive. Reading pauses while `max_in_flight` requests are open, and while
    others hold the room for the next one's bytes. An error of an answer ends the call after the responses
    that were ready before it; a message that is refused ends it once all before it have been answered.

    Args:
        requests: requests of the call.
        context: context of the call.
        max_in_flight: maximum of requests that are read and not yet answered.
        answer: answers one request through the write function it is passed, which waits until written.
    """
    answering = _Answering(requests, _Writer[Response](context), max_in_flight, answer)
    try:
        async with asyncio.TaskGroup() as group:
            refusal = await answering.begin_all(group)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if refusal is not None:
        raise refusal
