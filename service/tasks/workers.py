"""Threads for work that is too long for the event loop, shared by clients in turn."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from service.engine.request import Caller
from service.errors import DeadlineExceeded
from service.tasks.lines import Lines

Result = TypeVar("Result")


class Workers:
    """Threads that run functions; those of a client wait for each other, not for those of all others.

    Used from the event loop alone. A function cannot be interrupted, so that it should be short: work is
    handed over piece by piece.

    Args:
        threads: maximum of functions that run at a time.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "worker")
        self._num_free = threads
        self._waiting: Lines[asyncio.Future[None]] = Lines()

    async def run(self, caller: Caller, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function in a thread as soon as it is its turn.

        Args:
            caller: who asks; the client shares the threads, and after the deadline nothing is begun.
            function: what to run.
            arguments: its arguments.

        Raises:
            DeadlineExceeded: the deadline passed before the function was begun.
            CancelledError: the caller is gone; a function that was not begun is never run.
        """
        await self._take_turn(caller)
        loop = asyncio.get_running_loop()
        try:
            running = self._executor.submit(function, *arguments)
        except BaseException:
            self._pass_on()
            raise
        # The thread is free when the function has ended, which a caller who is cancelled does not await.
        running.add_done_callback(lambda _: _call_in(loop, self._pass_on))
        return await asyncio.wrap_future(running)

    async def _take_turn(self, caller: Caller) -> None:
        left_s = None if caller.deadline is None else caller.deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise _late()
        if self._num_free:
            self._num_free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(caller.client, turn)
        try:
            async with asyncio.timeout(left_s):
                await turn
        except BaseException as error:
            self._waiting.remove(caller.client, turn)
            if turn.done() and not turn.cancelled():  # the turn came together with the end
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise _late() from None
            raise

    def _pass_on(self) -> None:
        """Give the thread of a function that has ended to the one whose turn it is."""
        while (turn := self._waiting.pop()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._num_free += 1


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed while the request waited for its turn")


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have a function called in the event loop, unless that has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
