"""Watches of engines: who may open one, how many there are, and when they end.

A watch reads what engines have recorded and refers to nothing of the version that it watches, so that a peer
who does not read keeps no version in memory. Everything runs in the event loop.
"""

import asyncio
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from seqserve.v1 import models_pb2 as pb
from service.api.caller import client_of, may_administer
from service.api.tick_messages import Feed, TickMessages, Watched
from service.api.versions import find_any
from service.errors import PermissionDenied, TooManyWatches, Withdrawn
from service.models.loading import Served
from service.models.table import VersionTable

METHOD = f"/{pb.DESCRIPTOR.services_by_name['Models'].full_name}/WatchEngine"
# Watches of all callers.
MAX_WATCHES = 16
# Seconds between two messages, and between two that have no ticks.
INTERVAL_S, IDLE_S = 0.1, 1.0

Right = Literal["predict", "admin", "off"]


@dataclass(slots=True, eq=False)
class _Recording:
    """The recording of a version's engines, which all of its watches share."""

    served: "weakref.ref[Served]"
    watched: Watched
    messages: TickMessages
    num_watches: int = 0


class EngineWatches:
    """Serves Models.WatchEngine.

    Args:
        table: versions by name and number.
        right: right that a caller needs; "off": nobody may watch.
        interval_s: seconds between two messages.
    """

    def __init__(self, table: VersionTable, right: Right = "predict", interval_s: float = INTERVAL_S) -> None:
        self._table = table
        self._right = right
        self._interval_s = interval_s
        self._recordings: dict[tuple[str, int], _Recording] = {}
        self._by_client: Counter[str] = Counter()
        self._is_ending = False

    @property
    def num_open(self) -> int:
        """Number of open watches; one is open until its status has been sent."""
        return self._by_client.total()

    def end(self) -> None:
        """End every watch at its next message, and each new one at once."""
        self._is_ending = True

    async def watch(
        self, request: pb.WatchEngineRequest, context: Any
    ) -> AsyncIterator[pb.WatchEngineResponse]:
        """Yield what the engines of a version run, until it ceases to serve or `end` is called.

        Raises:
            PermissionDenied: the caller may not watch.
            InvalidArgument, NotFound, NotReady, NotServed: no such version serves.
            TooManyWatches: all callers have `MAX_WATCHES` open, or this one as many as are free.
            Withdrawn: the version or the server stops serving.
        """
        self._check_access()
        recording = self._open(find_any(self._table, request.model, request.version), client_of(context))
        feed = Feed(recording.watched, recording.messages)
        written = float("-inf")
        while self._is_current(recording):
            now = time.monotonic()
            message = feed.read(now)
            if message.ticks or message.dropped_ticks or now - written >= IDLE_S:
                yield message
                written = now
            await asyncio.sleep(self._interval_s)
        raise Withdrawn("the version that is watched ceases to serve here; watch again")

    def _check_access(self) -> None:
        if self._right == "off":
            raise PermissionDenied("watching engines is off on this server (SEQSERVE_WATCH_ENGINE)")
        if self._right == "admin" and not may_administer.get():
            raise PermissionDenied(
                "Models.WatchEngine needs the right admin on this server (SEQSERVE_WATCH_ENGINE, "
                "SEQSERVE_TOKENS)"
            )

    def _is_current(self, recording: _Recording) -> bool:
        watched = recording.watched
        entry = self._table.entry(watched.name, watched.version)
        served = None if entry is None else entry.served
        return served is not None and served is recording.served() and not self._is_ending

    def _open(self, served: Served, client: str) -> _Recording:
        """Count a watch until its task ends, and have the engines record from the first one on."""
        own, free = self._by_client[client], MAX_WATCHES - self.num_open
        if own >= free:
            raise TooManyWatches(
                f"expected fewer watches of the caller's than the {free} that are free of {MAX_WATCHES}, "
                f"found {own} and one more; end some"
            )
        key = served.spec.name, served.spec.version
        recording = self._recordings.get(key)
        if recording is None or recording.served() is not served:
            recording = self._recordings[key] = _record(served)
        self._by_client[client] += 1
        recording.num_watches += 1
        task: Any = asyncio.current_task()
        task.add_done_callback(partial(self._close, key, recording, client))
        return recording

    def _close(
        self, key: tuple[str, int], recording: _Recording, client: str, _: "asyncio.Task[Any]"
    ) -> None:
        self._by_client -= Counter([client])  # forgets a client without watches
        recording.num_watches -= 1
        if recording.num_watches:
            return
        if self._recordings.get(key) is recording:
            del self._recordings[key]
        if (served := recording.served()) is not None:
            served.engine.stop_recording()


def _record(served: Served) -> _Recording:
    group = served.engine
    slots = tuple(engine.limits.slots for engine in group.engines)
    watched = Watched(served.spec.name, served.spec.version, slots, served.counts, group.start_recording())
    return _Recording(weakref.ref(served), watched, TickMessages(watched, time.monotonic()))
