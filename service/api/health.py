"""grpc.health.v1 whose Watch streams do not hold up a drain: once told to end, each says NOT_SERVING and is
over.
"""

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

from service.errors import Unsupported

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WATCH_METHOD = f"/{health.SERVICE_NAME}/Watch"


class _Watcher:
    """A call's context that remembers whether the last word written was SERVING."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.has_said_no = asyncio.Event()

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        await self._context.write(response)
        if response.status == SERVING:
            self.has_said_no.clear()
        else:
            self.has_said_no.set()


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Check and Watch; List is refused."""

    def __init__(self) -> None:
        super().__init__()
        self._is_ending = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """Send the status and each change of it, until `end_watches`."""
        watcher = _Watcher(context)
        watch = asyncio.ensure_future(super().Watch(request, watcher))
        ending = asyncio.ensure_future(self._is_ending.wait())
        try:
            await asyncio.wait({watch, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not watch.done():
                await watcher.has_said_no.wait()
        finally:
            ending.cancel()
            watch.cancel()

    async def List(self, request: Any, context: Any) -> None:
        """Refused: the package's own raises what would be taken for a mistake in the service."""
        raise Unsupported(
            "List is not served; Check and Watch answer by name, and seqserve.v1.Models/List names the models"
        )

    def end_watches(self) -> None:
        """End every Watch, now and from now on; after `enter_graceful_shutdown`, so that each has something
        to say.
        """
        self._is_ending.set()
