"""Calls in progress, which a drain awaits and then withdraws, and which may be ended by an error."""

import asyncio
from collections import Counter
from typing import Any

from service.errors import ServiceError, Withdrawn

_WITHDRAWN = "the server is stopping; go on from the text so far at another replica"


class RunningCalls:
    """Tasks of the calls that are awaited before the server stops.

    Attributes:
        num_refused: number of calls refused since `refuse_new`.
    """

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], tuple[Any, str]] = {}
        self._errors: dict[asyncio.Task[Any], ServiceError] = {}
        self._ending: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()
        self._is_refusing = False
        self.num_refused = 0

    def add(self, task: "asyncio.Task[Any]", context: Any, method: str) -> None:
        """Add a call that has begun, by its task, its gRPC context and the name of its method."""
        self._tasks[task] = context, method

    def remove(self, task: "asyncio.Task[Any]") -> None:
        """Remove a call that has ended, added or not."""
        self._tasks.pop(task, None)
        self._errors.pop(task, None)
        self._ending.discard(task)
        if not self._tasks:
            self._ended.set()

    def refuse_new(self) -> None:
        """Have calls refused that begin from now on."""
        self._is_refusing = True

    def check_taken(self) -> None:
        """Raise Withdrawn for a call that begins after `refuse_new`, and count it."""
        if self._is_refusing:
            self.num_refused += 1
            raise Withdrawn(_WITHDRAWN)

    def peers(self) -> set[str]:
        """Return the peers that have a call running, each as address and port."""
        return {context.peer() for context, _ in self._tasks.values()}

    def by_method(self) -> dict[str, int]:
        """Return the number of calls that run of each method, most first."""
        return dict(Counter(method for _, method in self._tasks.values()).most_common())

    async def idle(self) -> None:
        """Wait until no call is running."""
        while self._tasks:
            self._ended.clear()
            await self._ended.wait()

    def withdraw(self) -> None:
        """End every running call with UNAVAILABLE, so that its client retries elsewhere."""
        for task in self._tasks:
            self.end(task, Withdrawn(_WITHDRAWN))

    def end(self, task: "asyncio.Task[Any]", error: ServiceError) -> None:
        """Cancel a call, which then ends with the error, unless it is ending already."""
        if task not in self._ending:
            self._errors[task] = error
            task.cancel()

    def note_ending(self, task: "asyncio.Task[Any]") -> None:
        """Note that a call is sending its status, which a cancellation would lose."""
        self._ending.add(task)

    def take_error(self, task: "asyncio.Task[Any]") -> ServiceError | None:
        """Return the error that a call was ended with, None if it was not; it can be taken once."""
        return self._errors.pop(task, None)
