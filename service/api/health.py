"""Servicer of grpc.health.v1.Health.

The servicer of grpcio-health-checking holds a lock during each write to a watcher, so that one watcher that
does not read its stream blocks every later change of status. Here a change is an assignment in the event
loop, which wakes the watches of that name; each watch writes without a lock, and after a write continues
with the latest status.
"""

import asyncio
from collections import Counter, defaultdict
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from service.errors import TooManyWatches, Unsupported
from service.transport.call import CallBroken

SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
WATCH_METHOD = f"/{health.SERVICE_NAME}/Watch"
# Watches of one connection: a watch whose peer does not read lasts as long as its connection.
MAX_WATCHES = 100


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Serves Check and Watch, and refuses List.

    Every method must be called in the event loop; the methods that change a status do not block.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {}
        self._watches: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._by_peer: Counter[str] = Counter()
        self._is_shut_down = False
        self._is_ending = False

    @property
    def num_watches(self) -> int:
        """Number of open Watch calls; a call is open until its status has been sent."""
        return self._by_peer.total()

    def set(self, name: str, status: int) -> None:
        """Set the status of a name and wake its watches; after `enter_graceful_shutdown` do nothing.

        Args:
            name: "" for the whole server, the full name of a service, or model/NAME.
            status: SERVING or NOT_SERVING.
        """
        if not self._is_shut_down and self._statuses.get(name) != status:
            self._statuses[name] = status
            self._wake(name)

    def enter_graceful_shutdown(self) -> None:
        """Set every known name to NOT_SERVING and ignore later changes."""
        for name in self._statuses:
            self.set(name, NOT_SERVING)
        self._is_shut_down = True

    def end_watches(self) -> None:
        """Shut down, and end every open or new watch once it has written the last status."""
        self.enter_graceful_shutdown()
        self._is_ending = True
        for name in self._watches:
            self._wake(name)

    async def Check(
        self,
        request: health_pb2.HealthCheckRequest,
        context: Any,
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a name; an unknown name is NOT_FOUND."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Write the status of a name and each change of it, until `end_watches`.

        After several changes during one write only the last is written. The status of an unknown name is
        SERVICE_UNKNOWN.

        Raises:
            TooManyWatches: the connection has `MAX_WATCHES` open watches.
        """
        changed = self._open(request.service, context.peer())
        written = None
        while True:
            changed.clear()
            status = self._statuses.get(request.service, SERVICE_UNKNOWN)
            if status != written:
                await _write(context, status)
                written = status
            elif self._is_ending:
                return
            else:
                await changed.wait()

    async def List(self, request: Any, context: Any) -> None:
        """Refuse; Models/List lists the models."""
        others = "Check and Watch answer by name, and seqserve.v1.Models/List names the models"
        raise Unsupported(f"List is not served; {others}")

    def _wake(self, name: str) -> None:
        for changed in self._watches.get(name, ()):
            changed.set()

    def _open(self, name: str, peer: str) -> asyncio.Event:
        """Register a watch until its task ends; return the event that wakes it."""
        if self._by_peer[peer] >= MAX_WATCHES:
            raise TooManyWatches(
                f"expected at most {MAX_WATCHES} Watch calls on one connection, found one more"
            )
        changed = asyncio.Event()
        self._watches[name].add(changed)
        self._by_peer[peer] += 1
        task: Any = asyncio.current_task()
        task.add_done_callback(partial(self._close, name, peer, changed))
        return changed

    def _close(self, name: str, peer: str, changed: asyncio.Event, task: "asyncio.Task[Any]") -> None:
        self._watches[name].discard(changed)
        if not self._watches[name]:
            del self._watches[name]
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]


async def _write(context: Any, status: int) -> None:
    """Write a status and wait until grpc has sent it; a failed write raises CancelledError."""
    try:
        await context.write(health_pb2.HealthCheckResponse(status=status))
    except CallBroken as error:
        # When a connection breaks, grpc fails the pending write a moment before it cancels the call's task.
        raise asyncio.CancelledError from error
