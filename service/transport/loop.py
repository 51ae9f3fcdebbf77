"""Event loop whose thread waits for gRPC's core itself."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from service.transport.polling import CompletionSelector


class User(Protocol):
    """Whatever has operations pending in the completion queue of a loop that is closed."""

    def end_now(self) -> None:
        """Have every pending operation end."""


class CompletionLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop that also handles the events of a completion queue.

    Attributes:
        queue: completion queue; the tag of an event is called with it, in the loop's thread.
        users: those with operations pending in the queue, which leave this set once they have none.
    """

    # The finalizer of asyncio looks at it, also where the selector could not be made.
    _closed = True

    def __init__(self) -> None:
        self._completions = CompletionSelector()
        self._completions.on_error = self._report
        self.queue: Any = self._completions.queue
        self.users: set[User] = set()
        super().__init__(self._completions)

    def close(self) -> None:
        """Close the loop, after those that use the queue have ended."""
        for user in self.users:
            user.end_now()
        while self.users:
            self._completions.handle_next()
        super().close()

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """Have a function called once when the loop has nothing else to do, in the loop's thread.

        A loop that stays busy calls it after `MAX_IDLE_DELAY_S`.
        """
        self._completions.call_when_idle(call)

    def _write_to_self(self) -> None:
        """Wake the loop: asyncio calls this from other threads."""
        self._completions.wake()

    def _report(self, error: BaseException) -> None:
        context = {
            "message": "Exception in a function that the event loop's queue called",
            "exception": error,
        }
        self.call_exception_handler(context)


def completion_loop(loop: asyncio.AbstractEventLoop) -> CompletionLoop:
    """Return the loop.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(loop, CompletionLoop):
        raise TypeError(f"expected a {CompletionLoop.__name__}, found a {type(loop).__name__}")
    return loop
