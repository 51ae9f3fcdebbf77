"""Watches of a version's engines, in the asyncio client."""

from abc import ABC
from collections.abc import Callable

from seqserve.aio_calls import AsyncStream, AsyncStreamCall
from seqserve.aio_infer import AsyncInferCalls
from seqserve.engine_results import EngineTicks
from seqserve.link import Link
from seqserve.retry import Attempts
from seqserve.v1.models_pb2 import WatchEngineRequest, WatchEngineResponse
from seqserve.watching import EngineWatchCore, watch_request


class AsyncEngineWatch(EngineWatchCore, AsyncStream[WatchEngineResponse, EngineTicks]):
    """A watch of the engines of a version, which calls again as `EngineWatch` does."""

    def __init__(
        self,
        link: Link,
        method: Callable[..., AsyncStreamCall[WatchEngineResponse]],
        request: WatchEngineRequest,
        attempts: Attempts,
    ) -> None:
        EngineWatchCore.__init__(self, link, attempts)
        AsyncStream.__init__(self, lambda: link.call(method, request, timeout=attempts.remaining_s()))


class AsyncWatchCalls(AsyncInferCalls, ABC):
    """Base class of the client: watches of engines."""

    def watch_engine(
        self, model: str, version: int = 0, *, timeout_s: float | None = None
    ) -> AsyncEngineWatch:
        """Watch what the engines of a version run; returns the stream at once, without await."""
        request = watch_request(model, version)
        self._connect()
        return AsyncEngineWatch(self._link, self._models.WatchEngine, request, self._attempts(timeout_s))
