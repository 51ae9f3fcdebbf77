"""Runs only the newest of several calls, for pages that ask again at every key that is pressed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from seqserve.waiting import is_task_cancelled

Answer = TypeVar("Answer")


class Newest(Generic[Answer]):
    """Runs calls one at a time: each new one cancels the one before it, whatever that waits for.

    Args:
        delay_s: Seconds that a call waits for a newer one before it starts.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._task: asyncio.Task[Answer] | None = None

    async def run(self, call: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """Run a call after the delay, and return its answer, or None if a newer one has cancelled it.

        Raises:
            asyncio.CancelledError: The waiting task was cancelled; the call is cancelled with it.
        """
        self.cancel()
        self._task = task = asyncio.ensure_future(self._later(call))
        try:
            return await task
        except asyncio.CancelledError:
            if is_task_cancelled():
                raise
            return None
        finally:
            if self._task is task:
                self._task = None

    def cancel(self) -> None:
        """Cancel the call that runs, if there is one."""
        if self._task is not None:
            self._task.cancel()

    async def _later(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        await asyncio.sleep(self._delay_s)
        return await call()
