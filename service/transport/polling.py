"""Selector of an event loop that waits on a completion queue of gRPC's core.

grpc's own event loop has a thread that waits on the queue, which wakes the loop through a socket for each
event. Here the loop's own thread waits, so an event needs no other thread and no system call. File
descriptors, of which the server's loop has one or two, are waited for by a thread.
"""

import selectors
import time
from collections.abc import Callable, Mapping
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

from service.transport.descriptors import Descriptors
from service.transport.waker import Waker

_TIMEOUT = cygrpc.CompletionType.queue_timeout
# A time that has passed: what is in the queue is taken, and nothing is waited for.
_PAST = 0.0
# Seconds of one wait at most. gRPC's core takes a time of the day and converts it to one of the monotonic
# clock every 200 ms: a longer wait would be as much too long as the time of the day is set back meanwhile.
_MAX_WAIT_S = 0.2
# Events that are handled before callbacks of the loop run.
_MAX_EVENTS = 256

# A function that waits for an idle loop is called after so many seconds, however busy the loop is.
MAX_IDLE_DELAY_S = 0.005
OnError = Callable[[BaseException], None]


class CompletionSelector(selectors.BaseSelector):
    """Waits on a completion queue, whose tags it calls with their events, and on file descriptors.

    A tag of None is of an event that only ends a wait.

    Attributes:
        queue: the completion queue.
        on_error: takes what a tag or a function that waited for an idle loop raises.
    """

    def __init__(self) -> None:
        self.queue = cygrpc.CompletionQueue()
        self.on_error: OnError = _raise
        self._waker = Waker(self.queue)
        # Set before the loop may sleep, and looked at by whoever gives it something to do.
        self._is_asleep = False
        self._is_woken = False
        self._descriptors = Descriptors(self.wake)
        self._idle_calls: list[Callable[[], None]] = []
        self._since = 0.0

    def call_when_idle(self, call: Callable[[], None]) -> None:
        """Have a function called once when the loop has nothing to do, or after `MAX_IDLE_DELAY_S`.

        Called in the loop's thread.
        """
        if not self._idle_calls:
            self._since = time.monotonic()
        self._idle_calls.append(call)

    def wake(self) -> None:
        """End the present wait, or the next one, from any thread."""
        self._is_woken = True
        if self._is_asleep:
            self._is_asleep = False
            self._waker.wake()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for an event, handle those that have come, and return the descriptors that are ready.

        Args:
            timeout: seconds, 0 or less to look only; None: as long as it takes.
        """
        self._descriptors.go_on()
        if self._idle_calls:
            self._call_or_wait_until_idle(timeout is None or timeout > 0)
        else:
            self._is_asleep = True
            event = self.queue.poll(_PAST if self._is_woken else _deadline(timeout))
            self._is_asleep = self._is_woken = False
            self._handle_all(event)
        return self._descriptors.take_ready()

    def _call_or_wait_until_idle(self, has_nothing_ready: bool) -> None:
        """Handle the events that have come; where there are none, call the functions that wait for that."""
        self._is_woken = False
        num_handled = self._handle_all(self.queue.poll(_PAST))
        is_idle = has_nothing_ready and not num_handled and not self._is_woken
        if is_idle or time.monotonic() - self._since > MAX_IDLE_DELAY_S:
            calls, self._idle_calls = self._idle_calls, []
            for call in calls:
                self._run(call)

    def _handle_all(self, event: Any) -> int:
        """Handle an event and those after it that have come; return their number."""
        count = 0
        while event.completion_type != _TIMEOUT:
            self._handle(event)
            count += 1
            if count == _MAX_EVENTS:
                break
            event = self.queue.poll(_PAST)
        return count

    def handle_next(self) -> None:
        """Wait for one event of the queue, or for a moment, and handle it."""
        self._handle(self.queue.poll(_deadline(_MAX_WAIT_S)))

    def _handle(self, event: Any) -> None:
        if event.tag is not None:
            self._run(event.tag, event)

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self.on_error(error)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Begin to wait for a descriptor."""
        return self._descriptors.selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Cease to wait for a descriptor."""
        return self._descriptors.selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Wait for other events of a descriptor."""
        return self._descriptors.selector.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the descriptors that are waited for."""
        return self._descriptors.selector.get_map()

    def close(self) -> None:
        """Close the queue; whatever was started in it must end, for this waits for that."""
        self._descriptors.close()
        self.queue.shutdown()
        while self.queue.poll().completion_type != cygrpc.CompletionType.queue_shutdown:
            pass


def _deadline(timeout: float | None) -> float | None:
    """Return the time of the day until which a wait lasts, None for one without end."""
    if timeout is None:
        return None
    return time.time() + min(timeout, _MAX_WAIT_S) if timeout > 0 else _PAST


def _raise(error: BaseException) -> None:
    raise error
