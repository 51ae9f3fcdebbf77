"""Stops taking calls: the requests to stop that signals make, and the drain of the calls that run.

The first request begins the grace period and the drain. A second one ends both: calls that still run get
UNAVAILABLE at once. A third one, a while later, ends the process.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable

import structlog

from service.api.calls import Calls
from service.api.engine_watches import EngineWatches
from service.api.health import HealthServicer
from service.api.listener import Listener
from service.settings import Settings
from service.signals import SAME_S

_log = structlog.get_logger(__name__)

# Seconds to flush the status of calls that are withdrawn at the end of the drain.
FLUSH_S = 1.0
# Seconds for refusing the calls that wait in grpc's core, and without one more, after which none waits.
REFUSE_S, REFUSE_QUIET_S = 1.5, 0.05
# Seconds that connections without a call have to answer the server's GOAWAY.
GOAWAY_S = 0.2
# Seconds to flush statuses and the last of the log where the server ends at once.
AT_ONCE_S = 0.1
# Seconds between the lines of the log that tell what is waited for, and from a second request to a third.
TOLD_EVERY_S, THIRD_S = 5.0, 1.0


class Stop:
    """Requests to stop the server.

    Attributes:
        is_asked: set by the first request.
        is_hurried: set by the second.
    """

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.is_hurried = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._changed_at = 0.0

    def ask(self, number: int) -> None:
        """Take the request that a signal makes; a terminal that closes makes a first one alone."""
        since, now = self._changed_at, self._loop.time()
        name = signal.Signals(number).name
        if not self.is_asked.is_set():
            _log.info("stopping", signal=name)
            self.is_asked.set()
        elif number == signal.SIGHUP or now - since < SAME_S:
            return
        elif not self.is_hurried.is_set():
            _log.warning("stopping at once", signal=name)
            self.is_hurried.set()
        elif now - since >= THIRD_S:
            os._exit(128 + number)
        else:
            return
        self._changed_at = now

    async def wait(self, *awaited: Awaitable[object], seconds: float, hurried_s: float = 0.0) -> None:
        """Wait for the first of some tasks for so long; for `hurried_s` at most once the server hurries."""
        tasks = [asyncio.ensure_future(one) for one in awaited]
        hurry = asyncio.create_task(self.is_hurried.wait())
        await asyncio.wait({*tasks, hurry}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if tasks and hurry.done() and not any(task.done() for task in tasks):
            await asyncio.wait(tasks, timeout=hurried_s, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()


class Drain:
    """Ends the calls and the listener.

    Args:
        settings: grace period and time of the drain.
        stop: requests to stop; the second one ends every wait.
        calls: calls that run.
        listener: what accepts them.
        health: watched by clients.
        engine_watches: watches of engines, which are not awaited either.
    """

    def __init__(
        self,
        settings: Settings,
        stop: Stop,
        calls: Calls,
        listener: Listener,
        health: HealthServicer,
        engine_watches: EngineWatches,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._running = calls.running
        self._listener = listener
        self._health = health
        self._engine_watches = engine_watches
        self._loop = asyncio.get_running_loop()
        self._waits_for = "the grace period"

    async def run(self, has_served: bool) -> None:
        """Set health to NOT_SERVING, wait for the grace period, refuse new calls, await running ones.

        Args:
            has_served: whether anybody can know the server: otherwise it needs no grace.
        """
        settings = self._settings
        _log.info("draining", grace_seconds=settings.grace_seconds, seconds=settings.drain_seconds)
        self._health.enter_graceful_shutdown()
        telling = asyncio.create_task(self._tell())
        if has_served and self._stop.is_asked.is_set():
            await self._stop.wait(seconds=settings.grace_seconds)
        self._waits_for = "running calls"
        ends_at = self._loop.time() + settings.drain_seconds
        await self._refuse_queued()
        left_s = max(0.0, ends_at - self._loop.time())
        stopped = asyncio.create_task(self._listener.stop(left_s + FLUSH_S))
        idle = asyncio.create_task(self._running.idle())
        # The listener has stopped once gRPC's calls have ended, whatever calls run over HTTP.
        await self._stop.wait(idle, seconds=left_s)
        if not idle.done():
            self._running.withdraw()
            await self._stop.wait(idle, seconds=FLUSH_S, hurried_s=AT_ONCE_S)
        self._waits_for = "connections"
        await self._end_watches(stopped)
        idle.cancel()
        telling.cancel()

    async def _tell(self) -> None:
        """Log periodically what the drain waits for."""
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            _log.info("drain waits", waits_for=self._waits_for, calls=self._running.by_method())

    async def _end_watches(self, stopped: "asyncio.Task[None]") -> None:
        """End the watches of health and of engines, and wait until the server has stopped.

        grpc sends GOAWAY on each connection and waits for the peer to answer, which a silent one never does,
        and a watch whose peer does not read cannot end. So once no other call is left, the rest is cut off.
        """
        self._health.end_watches()
        self._engine_watches.end()
        ended = asyncio.create_task(self._listener.calls_ended())
        await self._stop.wait(stopped, ended, seconds=FLUSH_S, hurried_s=AT_ONCE_S)
        if ended.done():
            await self._stop.wait(stopped, seconds=GOAWAY_S)
        watches = self._health.num_watches + self._engine_watches.num_open
        if watches and not stopped.done():
            _log.warning("watchers do not read and are cut off", watches=watches)
        if not stopped.done() and (watches or ended.done() or self._stop.is_hurried.is_set()):
            await self._listener.stop(0.0)
        await stopped
        ended.cancel()

    async def _refuse_queued(self) -> None:
        """Refuse the calls that wait in grpc's core, as UNAVAILABLE; its stop would end them as CANCELLED."""
        self._running.refuse_new()
        until = self._loop.time() + REFUSE_S
        refused = -1
        while refused != self._running.num_refused and self._loop.time() < until:
            refused = self._running.num_refused
            await asyncio.sleep(REFUSE_QUIET_S)
