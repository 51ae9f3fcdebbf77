"""Threads for work that is too long for the event loop, shared by clients in turn."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog

from service.engine.request import Caller
from service.errors import DeadlineExceeded
from service.tasks.lines import ClientTurns

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")
# An executor of one thread, started when it is made, so that it starts none while it serves.
_Thread = ThreadPoolExecutor


class Workers:
    """Threads that run functions; free ones go to the clients in turn, whatever each of them has waiting.

    Used from the event loop alone. A function cannot be interrupted, so that it should be short: work is
    handed over piece by piece.

    Args:
        threads: functions that run at a time, fewer where not so many threads can be started.

    Raises:
        RuntimeError: no thread can be started.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ClientTurns(_start_threads(threads))

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
        thread = await self._take_turn(caller)
        loop = asyncio.get_running_loop()
        try:
            running = thread.submit(function, *arguments)
        except BaseException:
            self._threads.pass_on(thread)
            raise
        # The thread is free when the function has ended, which a caller who is cancelled does not await.
        running.add_done_callback(lambda _: _call_in(loop, lambda: self._threads.pass_on(thread)))
        return await asyncio.wrap_future(running)

    async def _take_turn(self, caller: Caller) -> _Thread:
        left_s = None if caller.deadline is None else caller.deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise _late()
        try:
            async with asyncio.timeout(left_s):
                return await self._threads.take(caller.client)
        except TimeoutError:
            raise _late() from None


def _start_threads(number: int) -> list[_Thread]:
    """Start threads: as many as are asked for, else those that can be started, at least one.

    Raises:
        RuntimeError: none can be started.
    """
    started: list[_Thread] = []
    for index in range(number):
        thread = _Thread(1, f"worker-{index}")
        try:
            thread.submit(_do_nothing)
        except RuntimeError as error:
            if not started:
                raise
            _log.warning("fewer workers than threads", workers=len(started), threads=number, exc_info=error)
            break
        started.append(thread)
    return started


def _do_nothing() -> None:
    """Let a thread be started."""


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed while the request waited for its turn")


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have a function called in the event loop, unless that has ended."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
