"""Calls that wait for a message of their client, of which gRPC may hold any part already.

How much of a message has come is not known before it is complete. So a call whose only message takes longer
than a moment is charged for the largest message that there may be, and ends where there is no room for it. A
two-way stream may wait for its next message for hours and is not charged; streams that wait end, and their
connections with them, only where the process is about to run out of memory.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from service.api.held_bytes import Holding
from service.api.large_messages import LargeMessages
from service.api.running import RunningCalls
from service.errors import BytesExhausted, DeadlineExceeded

# A message that was sent in one go is there within a round trip.
SLOW_S = 0.25
# Time that a call's only message may take.
MAX_S = 60.0
_SWEEP_S = 0.1
# Streams that are ended at most before memory is looked at again.
_MAX_ENDED = 16

_Task = asyncio.Task[Any]


@dataclass(slots=True)
class _Wait:
    """One call that waits for a message since a time in monotonic seconds; what it was charged for it."""

    context: Any
    holding: Holding
    is_only: bool
    since: float
    charge: int = 0


class Receiving:
    """Waits for messages.

    Args:
        running: ends calls.
        max_message_bytes: largest message that a client may send.
        is_short_of_memory: returns whether the process is about to run out of memory.

    Attributes:
        large: parses large messages.
        cut_off: shuts the connections of peers down; does nothing until it is set.
    """

    def __init__(
        self,
        running: RunningCalls,
        max_message_bytes: int,
        is_short_of_memory: Callable[[], Awaitable[bool]],
    ) -> None:
        self.cut_off: Callable[[set[str]], None] = _ignore
        self.large = LargeMessages()
        self._running = running
        self._max_message_bytes = max_message_bytes
        self._is_short_of_memory = is_short_of_memory
        # Each in the order of arrival: waits that are new, those of calls with one message, of streams.
        self._new: dict[_Task, _Wait] = {}
        self._slow: dict[_Task, _Wait] = {}
        self._streams: dict[_Task, _Wait] = {}

    async def read(self, context: Any, holding: Holding, is_only: bool) -> Any:
        """Return the call's next message as bytes; None at their end.

        Args:
            context: context of the call, whose task is the current one.
            holding: is charged where the message is slow.
            is_only: the call has one message; False: any number.
        """
        task: Any = asyncio.current_task()
        wait = self._new[task] = _Wait(context, holding, is_only, time.monotonic())
        try:
            return await context.read()
        finally:
            if self._new.pop(task, None) is None:
                (self._slow if is_only else self._streams).pop(task, None)
                if wait.charge:
                    holding.give_back(wait.charge)

    async def watch(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(time.monotonic())
            if self._streams and await self._is_short_of_memory():
                self.end_streams()

    def sweep(self, now: float) -> None:
        """Charge or end the calls that have waited for long."""
        for task, wait in _older(self._new, now - SLOW_S):
            del self._new[task]
            if wait.is_only:
                self._slow[task] = wait
                self._charge(task, wait)
            else:
                self._streams[task] = wait
        for task, _ in _older(self._slow, now - MAX_S):
            del self._slow[task]
            self._end(task, DeadlineExceeded(f"expected the whole message within {MAX_S:g} s"))

    def _charge(self, task: _Task, wait: _Wait) -> None:
        try:
            wait.holding.take(self._max_message_bytes)
        except BytesExhausted as error:
            self._end(task, error)
        else:
            wait.charge = self._max_message_bytes

    def end_streams(self) -> None:
        """End streams of the host with most of them, those that wait least first, with their connections.

        A stream that waits for long more likely waits for nothing. gRPC frees what it has of a message with
        its connection at the latest: where an answer is not read, it cannot send the status.
        """
        peers = {task: wait.context.peer() for task, wait in self._streams.items()}
        hosts = Counter(map(_host_of, peers.values()))
        [(most, _)] = hosts.most_common(1) or [("", 0)]
        theirs = [task for task, peer in peers.items() if _host_of(peer) == most][-_MAX_ENDED:]
        for task in theirs:
            del self._streams[task]
            self._end(task, BytesExhausted("the server is short of memory", _SWEEP_S))
        self.cut_off({peers[task] for task in theirs})

    def _end(self, task: _Task, error: BytesExhausted | DeadlineExceeded) -> None:
        self._running.end(task, error)


def _host_of(peer: str) -> str:
    """Return the address of a gRPC peer without its port."""
    return peer.rpartition(":")[0]


def _ignore(_: set[str]) -> None:
    """Shut nothing down."""


def _older(waits: dict[_Task, _Wait], since: float) -> list[tuple[_Task, _Wait]]:
    """Return the waits that began before a time."""
    count = 0
    for wait in waits.values():
        if wait.since > since:
            break
        count += 1
    return list(islice(waits.items(), count))
