"""A stream of requests against a stream of answers: how many are open at a time, in which order they are
written, how it ends.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from grpc import aio

from service.api.parsing import Malformed

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True, eq=False)
class _Part(Generic[Response]):
    """A message that others follow in the answer to the same request, and who waits until it is written."""

    message: Response
    written: "asyncio.Future[None]"


class Exchange(Generic[Request, Response]):
    """One call's two directions: a task that reads, and the handler's own that writes.

    Args:
        context: of the call.
        most_unanswered: requests read and not yet answered; a caller who does not read his answers stops
            being read from.
    """

    def __init__(self, context: Any, most_unanswered: int) -> None:
        self._context = context
        self._most = most_unanswered
        self._unanswered = 0
        self._answers: deque[Response | _Part[Response]] = deque()
        self._error: BaseException | None = None
        self._work = asyncio.Event()
        self._room = asyncio.Event()

    def answer(self, response: Response) -> None:
        """Answer one request. Answers are written in the order in which they are given."""
        self._answers.append(response)
        self._work.set()

    async def begin(self, response: Response) -> None:
        """Write a message of an answer that `answer` ends, and wait until it is written: whoever is not read
        from does not run ahead.
        """
        part = _Part(response, asyncio.get_running_loop().create_future())
        self._answers.append(part)
        self._work.set()
        await part.written

    def fail(self, error: BaseException) -> None:
        """End the call with an error, after the answers given before it."""
        self._error = error
        self._work.set()

    async def run(self, take: Callable[[Request], Awaitable[None] | None]) -> None:
        """Until the caller has sent his last request and has every answer.

        Args:
            take: sees to it that a request is answered, sooner or later, exactly once. What it returns is
                awaited before the next is read.
        """
        reader = asyncio.create_task(self._read(take))
        reader.add_done_callback(lambda _: self._work.set())
        try:
            await self._write(reader)
        finally:
            reader.cancel()

    async def _write(self, reader: "asyncio.Task[None]") -> None:
        write, answers = self._context.write, self._answers
        while True:
            while answers:
                answer = answers.popleft()
                if type(answer) is _Part:
                    await write(answer.message)
                    if not answer.written.done():
                        answer.written.set_result(None)
                    continue
                await write(answer)
                self._unanswered -= 1
                self._room.set()
            if self._error is not None:
                raise self._error
            if reader.done():
                reader.result()  # what broke off the reading breaks off the call
                if not self._unanswered:
                    return
            self._work.clear()
            await self._work.wait()

    async def _read(self, take: Callable[[Request], Awaitable[None] | None]) -> None:
        read = self._context.read
        while (request := await read()) is not aio.EOF:
            if type(request) is Malformed:
                raise request.error()
            self._unanswered += 1
            # No coroutine for a request that needs none.
            if (taking := take(request)) is not None:
                await taking
            while self._unanswered >= self._most:
                self._room.clear()
                await self._room.wait()
