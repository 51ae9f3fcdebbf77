"""A call that waits until the event loop is idle, so that requests that come together share a turn."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import Context

# A pass of the loop that takes longer than so many seconds has done something else.
_IDLE_PASS_S = 10e-6
# After so many passes in which the loop has done nothing else it is idle.
_IDLE_PASSES = 16
# The function is called after so many seconds, however busy the loop is.
MAX_DELAY_S = 0.005


class IdleCall:
    """Calls a function in the event loop when that is idle, or after a short time.

    Args:
        loop: the event loop.
        call: the function.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop = loop
        self._call = call
        self._is_requested = False
        self._loop_thread = 0
        self._requested_at = 0.0
        self._last_pass = 0.0
        self._num_idle = 0
        # Its own, for a callback would else run, and log, in the context of the call that scheduled it.
        self.context = Context()

    def request(self) -> None:
        """Have the function called soon, once however often it is requested before; from any thread."""
        if self._is_requested:
            return
        self._is_requested = True
        if threading.get_ident() == self._loop_thread:
            self._loop.call_soon(self._begin, context=self.context)
        else:
            self._loop.call_soon_threadsafe(self._begin, context=self.context)

    def _begin(self) -> None:
        self._loop_thread = threading.get_ident()
        self._requested_at = self._last_pass = time.perf_counter()
        self._num_idle = 0
        self._loop.call_soon(self._look, context=self.context)

    def _look(self) -> None:
        now = time.perf_counter()
        self._num_idle = self._num_idle + 1 if now - self._last_pass < _IDLE_PASS_S else 0
        self._last_pass = now
        if self._num_idle >= _IDLE_PASSES or now - self._requested_at >= MAX_DELAY_S:
            self._is_requested = False
            self._call()
        else:
            self._loop.call_soon(self._look, context=self.context)
