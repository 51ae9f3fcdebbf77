"""A call that waits until the event loop is idle, so that requests that come together share a turn."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context

from service.transport.loop import completion_loop


class IdleCall:
    """Calls a function in the event loop when that is idle, or after a short time.

    Args:
        loop: the event loop, a CompletionLoop.
        call: the function.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = completion_loop(loop)
        self._call = call
        self._is_requested = False
        self._loop_thread = 0
        # Its own, for a callback would else run, and log, in the context of the call that scheduled it.
        self.context = Context()

    def request(self) -> None:
        """Have the function called soon, once however often it is requested before; from any thread."""
        if self._is_requested:
            return
        self._is_requested = True
        if threading.get_ident() == self._loop_thread:
            self._loop.call_when_idle(self._run)
        else:
            self._loop.call_soon_threadsafe(self._begin, context=self.context)

    def _begin(self) -> None:
        self._loop_thread = threading.get_ident()
        self._loop.call_when_idle(self._run)

    def _run(self) -> None:
        self._is_requested = False
        self.context.run(self._call)
