"""/metrics, /livez and /readyz."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPMethod, HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.http.compression import gzipped, takes_gzip

_log = logging.getLogger(__name__)

METRICS, LIVEZ, READYZ = PROBE_PATHS = "/metrics", "/livez", "/readyz"
_METHODS = ("GET", "HEAD")
_PLAIN = {"Content-Type": "text/plain"}


class Probes:
    """Answers probes and scrapes, in the event loop of the HTTP port.

    Args:
        registry: metrics for /metrics.
        is_alive: check for /livez; False asks for the process to be restarted.
        is_ready: check for /readyz; False means that it takes no requests.
    """

    def __init__(
        self, registry: CollectorRegistry, is_alive: Callable[[], bool], is_ready: Callable[[], bool]
    ) -> None:
        self._registry = registry
        self._checks = {LIVEZ: is_alive, READYZ: is_ready}
        self._scraping = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of the paths."""
        response = await self._answer(Request(scope))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method not in _METHODS:
            is_known = request.method in HTTPMethod.__members__
            status = HTTPStatus.METHOD_NOT_ALLOWED if is_known else HTTPStatus.NOT_IMPLEMENTED
            return Response(b"expected GET or HEAD\n", status, {"Allow": ", ".join(_METHODS), **_PLAIN})
        path = request.url.path
        try:
            return await self._scrape(request) if path == METRICS else _result_of(self._checks[path]())
        except Exception:
            _log.exception("a probe has failed")
            return Response(b"internal error; the log has the trace\n", 500, _PLAIN)

    async def _scrape(self, request: Request) -> Response:
        """Return the metrics, one scrape at a time and half of the time at most.

        Metrics take milliseconds, and however many are asked for, probes do not wait for more than one.
        """
        encode, content_type = _encoder(", ".join(request.headers.getlist("accept")))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        loop = asyncio.get_running_loop()
        async with self._scraping:
            started = loop.time()
            body = encode(self._registry)
            if takes_gzip(", ".join(request.headers.getlist("accept-encoding"))):
                body, headers["Content-Encoding"] = await gzipped(body), "gzip"
            await asyncio.sleep(loop.time() - started)
        return Response(body, headers=headers)


def _result_of(is_good: bool) -> Response:
    return Response(b"ok\n", 200, _PLAIN) if is_good else Response(b"not ok\n", 503, _PLAIN)


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return what encodes metrics, and its content type; plain text where the Accept header is odd."""
    try:
        # The content type repeats the version that is asked for.
        return choose_encoder(accept if accept.isprintable() else "")
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")
