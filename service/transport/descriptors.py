"""File descriptors of an event loop that waits for something else: a thread waits for them.

Once one is ready the thread wakes the loop, and sleeps until the loop has handled it.
"""

import os
import select
import selectors
import threading
from collections.abc import Callable


class Descriptors:
    """Waits for file descriptors.

    Args:
        wake: ends the wait of the loop, from any thread.

    Attributes:
        selector: takes the descriptors that are waited for.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.selector = selectors.EpollSelector()
        self._wake = wake
        self._are_ready = False
        self._is_paused = False
        self._is_closed = False
        self._go_on = threading.Semaphore(0)
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="descriptors", daemon=True)
        self._thread.start()

    def take_ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the descriptors that are ready, which the loop handles before it calls `go_on`."""
        if not self._are_ready:
            return []
        self._are_ready, self._is_paused = False, True
        return self.selector.select(0)

    def go_on(self) -> None:
        """Wait again, after what was ready has been handled."""
        if self._is_paused:
            self._is_paused = False
            self._go_on.release()

    def close(self) -> None:
        """End the thread, and wait for descriptors no longer."""
        self._is_closed = True
        os.eventfd_write(self._end, 1)
        self._go_on.release()
        self._thread.join()
        os.close(self._end)
        self.selector.close()

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (self.selector.fileno(), self._end):
            poll.register(descriptor, select.POLLIN)
        while True:
            poll.poll()
            if self._is_closed:
                return
            self._are_ready = True
            self._wake()
            self._go_on.acquire()
