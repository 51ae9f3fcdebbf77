"""Drains versions that take no new requests: waits for the running ones, then ends the version's engines.

A caller who never reads would keep each replaced version, with its memory and threads, for good. So only a
few versions of a model drain side by side; the calls that still need an older one are withdrawn.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from service.models.loading import Served
from service.models.memory import return_freed
from service.models.table import Entry
from service.models.threads import run_in_thread
from service.observability.metrics import Metrics

_log = structlog.get_logger(__name__)

MAX_DRAINING = 2  # versions of a model
_TRIM_AFTER_S = 0.1


class Drains:
    """The versions that drain. The event loop's thread alone uses it; `draining` may be read after its end.

    Args:
        metrics: forgets what a version counted.
        loop: the event loop.
        forget: takes an entry out of the table when its version has ended.

    Attributes:
        draining: versions that drain, oldest first.
    """

    def __init__(
        self, metrics: Metrics, loop: asyncio.AbstractEventLoop, forget: Callable[[Entry], None]
    ) -> None:
        self.draining: list[Served] = []
        self._metrics = metrics
        self._loop = loop
        self._forget = forget
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the identity of what drains

    def begin(self, served: Served, entry: Entry | None) -> None:
        """Drain a version, and withdraw the calls of those of its model that are too many.

        Args:
            served: it takes no new requests.
            entry: its entry, forgotten when it has ended; None: another version has taken its place.
        """
        self.draining.append(served)
        drain = self._tasks[id(served)] = asyncio.ensure_future(self._drain(served, entry))
        drain.add_done_callback(partial(self._end, id(served)))
        of_model = [one for one in self.draining if one.spec.name == served.spec.name]
        for surplus in of_model[:-MAX_DRAINING]:
            _withdraw(surplus)

    async def wait_for(self, served: Served) -> None:
        """Wait until a version has drained; whoever waits may leave, and the draining goes on."""
        if (drain := self._tasks.get(id(served))) is not None:
            await asyncio.shield(drain)

    async def wait_for_all(self) -> None:
        """Wait until nothing drains."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _drain(self, served: Served, entry: Entry | None) -> None:
        await served.leases.wait_until_free()
        await run_in_thread(served.stop)
        self._metrics.retire(served.spec.name, served.counts)
        self.draining.remove(served)
        if entry is not None:
            self._forget(entry)
        _log.info("model unloaded", model=served.spec.name, version=served.spec.version)

    def _end(self, which: int, drain: "asyncio.Task[None]") -> None:
        del self._tasks[which]
        if not drain.cancelled() and (error := drain.exception()) is not None:
            _log.error("draining failed", exc_info=error)
        # Later, when nothing refers to the version any more.
        self._loop.call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        try:
            self._loop.run_in_executor(None, return_freed)
        except RuntimeError as error:  # no thread can be started
            _log.warning("freed memory is kept until the next unload", reason=str(error))


def _withdraw(served: Served) -> None:
    if num_calls := served.leases.withdraw():
        _log.warning(
            "calls withdrawn: too many versions are draining",
            model=served.spec.name,
            version=served.spec.version,
            calls=num_calls,
        )
