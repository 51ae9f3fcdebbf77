"""/metrics, /livez and /readyz over plain HTTP.

They are served by a thread of their own, so they answer even when the event loop is blocked.
"""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class ProbeServer:
    """HTTP server for metrics and probes, running from `start` to `stop`.

    Args:
        host: address to listen on.
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
        self._server = _Listener(host, port, registry, {"/livez": is_alive, "/readyz": is_ready})
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Start answering requests."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and wait for the thread to end."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Listener(ThreadingHTTPServer):
    """Listening socket with one thread a request; daemon threads do not delay the end of the process."""

    daemon_threads = True

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, checks: dict[str, Callable[[], bool]]
    ) -> None:
        self.registry = registry
        self.checks = checks
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD on the three paths."""

    protocol_version = "HTTP/1.1"
    server: _Listener

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, content_type, encode(self.server.registry))
        elif self.path in self.server.checks:
            if self.server.checks[self.path]():
                self._answer(HTTPStatus.OK, "text/plain", b"ok\n")
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"not ok\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics, /livez or /readyz\n")

    do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as declared by http.server
        """Log nothing: probes come every second."""
