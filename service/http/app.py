"""The ASGI application of the HTTP port: probes, metrics, and whatever routes are added to them.

Nothing that it raises reaches uvicorn, whose log would hold what the peer has said.
"""

import asyncio
import logging
from collections.abc import Sequence

from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.http.probes import PROBE_PATHS, Probes

_log = logging.getLogger(__name__)

_NOT_FOUND = PlainTextResponse(f"expected {', '.join(PROBE_PATHS[:-1])} or {PROBE_PATHS[-1]}\n", 404)
_FAILED = PlainTextResponse("internal error; the log has the trace\n", 500)
_HEAD_TOO_LARGE = PlainTextResponse("expected a smaller head of a request\n", 431, {"Connection": "close"})
# Where a proxy takes one of the two for the end of the body, what follows is a request that it has not seen.
_ODD_FRAMING = PlainTextResponse(
    "expected Content-Length or, over HTTP/1.1, Transfer-Encoding, and not both\n",
    400,
    {"Connection": "close"},
)
# Bytes that a header has beside its name and its value.
_HEADER_BYTES = 4


def application(probes: Probes, routes: Sequence[BaseRoute], max_head_bytes: int) -> ASGIApp:
    """Return the application.

    Args:
        probes: metrics, liveness and readiness.
        routes: further routes.
        max_head_bytes: maximum size of the head of a request.
    """
    own = [Route(path, probes) for path in PROBE_PATHS]
    return _Guarded(Router([*own, *routes], redirect_slashes=False, default=_NOT_FOUND), max_head_bytes)


class _Guarded:
    """Refuses large heads and bodies of two ends, and answers for an application that raises.

    Args:
        app: the application.
        max_head_bytes: maximum size of the head of a request.
    """

    def __init__(self, app: ASGIApp, max_head_bytes: int) -> None:
        self._app = app
        self._max_head_bytes = max_head_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app_for(scope)(scope, receive, noting)
        except asyncio.CancelledError:
            return  # the server stops, and has closed the connection
        except Exception as error:
            _log.error("an HTTP request has failed", exc_info=error)
            if has_started:
                scope["state"]["connection"].cut()
            else:
                await _FAILED(scope, receive, send)

    def _app_for(self, scope: Scope) -> ASGIApp:
        if self._size_of(scope) > self._max_head_bytes:
            return _HEAD_TOO_LARGE
        names = {name for name, _ in scope["headers"]}
        is_chunked = b"transfer-encoding" in names
        if is_chunked and (b"content-length" in names or scope["http_version"] == "1.0"):
            return _ODD_FRAMING
        return self._app

    def _size_of(self, scope: Scope) -> int:
        headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in scope["headers"])
        return headers + len(scope["raw_path"]) + len(scope["query_string"])
