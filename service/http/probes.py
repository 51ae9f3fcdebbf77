"""/metrics, /livez and /readyz over plain HTTP.

They are served by an event loop in a thread of their own, so they answer even when the main event loop is
blocked. A connection costs no thread, and one that is slow or silent makes room for a newcomer.
"""

import asyncio
import logging
import resource
import socket
import threading
from collections.abc import Callable
from http import HTTPMethod, HTTPStatus
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.http.addresses import listen
from service.http.compression import gzipped, takes_gzip

_log = logging.getLogger(__name__)

# Open connections, of which there are fewer where the process may have few descriptors; with one more, the
# one that has been without a request for the longest is closed.
MAX_CONNECTIONS, DESCRIPTOR_SHARE = 64, 8
# Connections that wait to be accepted, seconds until accepting is tried again, and between its log lines.
BACKLOG, RETRY_S, LOG_INTERVAL_S = 128, 0.1, 10.0
MAX_HEAD_BYTES = 8192
METRICS = "/metrics"
_METHODS = ("GET", "HEAD")
# Seconds for the first request, between two requests, and for a peer to take an answer.
FIRST_S, NEXT_S, WRITE_S = 5.0, 60.0, 5.0


class _Request(NamedTuple):
    """Head of a request; a body is not read, so that its connection is not kept."""

    method: str
    target: str
    headers: dict[str, str]
    is_kept: bool


class _Answer(NamedTuple):
    """Status, body, and the lines of the head that the body needs."""

    status: HTTPStatus
    body: bytes
    headers: tuple[str, ...] = ("Content-Type: text/plain",)


class ProbeServer:
    """HTTP server for metrics and probes, running from `start` to `stop`.

    Args:
        host: name or address to listen on; of a name every address that it resolves to.
        port: port to listen on; 0 picks a free one.
        registry: metrics for /metrics.
        is_alive: check for /livez; False asks for the process to be restarted.
        is_ready: check for /readyz; False means that it takes no requests.

    Raises:
        OSError: the address is not available.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._checks = {"/livez": is_alive, "/readyz": is_ready}
        self._sockets = listen(host, port, BACKLOG)
        self.port: int = self._sockets[0].getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._scraping = asyncio.Lock()
        # Open connections, the one that has been without a request for the longest first.
        self._connections: dict[asyncio.StreamWriter, None] = {}
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Start answering requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, close the connections, and wait for the thread to end."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        accepting = [asyncio.create_task(self._accept(one)) for one in self._sockets]
        await self._stopping.wait()
        for task in accepting:
            task.cancel()
        for one in self._sockets:
            one.close()
        for connection in self._connections:
            connection.transport.abort()
        # The runner cancels the tasks of the connections: requests that wait for their turn get no answer.

    async def _accept(self, listening: socket.socket) -> None:
        """Accept connections one at a time; where there are many, each closes another before the next."""
        logged_at = float("-inf")
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listening)
                try:
                    await self._loop.connect_accepted_socket(self._new_protocol, connection)
                except OSError:
                    connection.close()
                    raise
            except OSError as error:  # mostly no descriptor is left
                if self._loop.time() - logged_at >= LOG_INTERVAL_S:
                    _log.warning("the HTTP port cannot accept connections", exc_info=error)
                    logged_at = self._loop.time()
                await asyncio.sleep(RETRY_S)

    def _new_protocol(self) -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(MAX_HEAD_BYTES, self._loop)
        return asyncio.StreamReaderProtocol(reader, self._connected, self._loop)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection until it ends, breaks, or is too slow."""
        self._connections[writer] = None
        if len(self._connections) > _max_connections():
            idle = next(iter(self._connections))
            del self._connections[idle]
            idle.transport.abort()
        writer.transport.set_write_buffer_limits(0)
        timeout_s = FIRST_S
        try:
            while await self._answer_next(reader, writer, timeout_s):
                timeout_s = NEXT_S
                self._connections[writer] = self._connections.pop(writer, None)
                await asyncio.sleep(0)  # requests that have come already must not hold up other connections
        except (OSError, EOFError, asyncio.LimitOverrunError):  # a peer that left or is too slow is normal
            writer.transport.abort()
        except asyncio.CancelledError:
            # The end of the server, for which the streams of Python 3.11 would log an error if it went on.
            writer.transport.abort()
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _answer_next(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float
    ) -> bool:
        """Read a request and answer it; return whether the connection goes on."""
        async with asyncio.timeout(timeout_s):
            request = _parse(await reader.readuntil(b"\r\n\r\n"))
        status, body, headers = await self._answer(request)
        is_kept = request is not None and request.is_kept
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            *headers,
            f"Content-Length: {len(body)}",
            *(() if is_kept else ("Connection: close",)),
        )
        has_body = request is None or request.method != "HEAD"
        writer.write("\r\n".join([*lines, "", ""]).encode() + (body if has_body else b""))
        async with asyncio.timeout(WRITE_S):
            await writer.drain()
        return is_kept

    async def _answer(self, request: _Request | None) -> _Answer:
        """Return the answer to a request; None was no HTTP."""
        if request is None:
            return _Answer(HTTPStatus.BAD_REQUEST, b"expected an HTTP/1 request\n")
        path = request.target.partition("?")[0]
        if path != METRICS and path not in self._checks:
            return _Answer(HTTPStatus.NOT_FOUND, b"expected /metrics, /livez or /readyz\n")
        if request.method not in _METHODS:
            is_known = request.method in HTTPMethod.__members__
            status = HTTPStatus.METHOD_NOT_ALLOWED if is_known else HTTPStatus.NOT_IMPLEMENTED
            headers = (f"Allow: {', '.join(_METHODS)}", "Content-Type: text/plain")
            return _Answer(status, b"expected GET or HEAD\n", headers)
        try:
            return await self._scrape(request) if path == METRICS else _result_of(self._checks[path]())
        except Exception:
            _log.exception("a probe has failed")
            return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error; the log has the trace\n")

    async def _scrape(self, request: _Request) -> _Answer:
        """Return the metrics, one scrape at a time and half of the time at most.

        Metrics take milliseconds, and however many are asked for, probes do not wait for more than one.
        """
        encode, content_type = _encoder(request.headers.get("accept", ""))
        headers: tuple[str, ...] = (f"Content-Type: {content_type}", "Vary: Accept, Accept-Encoding")
        async with self._scraping:
            started = self._loop.time()
            body = encode(self._registry)
            if takes_gzip(request.headers.get("accept-encoding", "")):
                body, headers = await gzipped(body), (*headers, "Content-Encoding: gzip")
            await asyncio.sleep(self._loop.time() - started)
        return _Answer(HTTPStatus.OK, body, headers)


def _result_of(is_good: bool) -> _Answer:
    if is_good:
        return _Answer(HTTPStatus.OK, b"ok\n")
    return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"not ok\n")


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return what encodes metrics, and its content type; plain text where the Accept header is odd."""
    try:
        # The content type repeats the version that is asked for.
        return choose_encoder(accept if accept.isprintable() else "")
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")


def _parse(head: bytes) -> _Request | None:
    """Return the request of a head, or None where it is none."""
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    method, target, version = words
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        before = headers.get(key := name.strip().lower())
        headers[key] = value.strip() if before is None else f"{before}, {value.strip()}"
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    wants_close = "close" in headers.get("connection", "").lower()
    return _Request(method, target, headers, version != "HTTP/1.0" and not wants_close and not has_body)


def _max_connections() -> int:
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(MAX_CONNECTIONS, descriptors // DESCRIPTOR_SHARE))
