"""Calls in progress, which a drain awaits and then withdraws."""

import asyncio
from typing import Any


class RunningCalls:
    """Tasks of the calls that are awaited before the server stops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._withdrawn: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()

    def add(self, task: "asyncio.Task[Any]") -> None:
        """Add a call that has begun."""
        self._tasks.add(task)

    def remove(self, task: "asyncio.Task[Any]") -> None:
        """Remove a call that has ended."""
        self._tasks.discard(task)
        self._withdrawn.discard(task)
        if not self._tasks:
            self._ended.set()

    async def idle(self) -> None:
        """Wait until no call is running."""
        while self._tasks:
            self._ended.clear()
            await self._ended.wait()

    def withdraw(self) -> None:
        """Cancel every running call; each ends with UNAVAILABLE, so that its client retries elsewhere."""
        self._withdrawn |= self._tasks
        for task in self._tasks:
            task.cancel()

    def is_withdrawn(self, task: "asyncio.Task[Any]") -> bool:
        """Return whether a call was ended by `withdraw`."""
        return task in self._withdrawn
