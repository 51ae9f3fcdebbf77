"""/metrics, /livez and /readyz over plain HTTP, in a thread of their own: they answer even when the event
loop is stuck.
"""

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


class HttpServer:
    """Serves until stopped.

    Args:
        host, port: where; port 0: any free one.
        registry: what /metrics shows.
        is_alive: for /livez: whether the process should go on living.
        is_ready: for /readyz: whether it takes requests.

    Raises:
        OSError: the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            """Answers GET and HEAD on three paths."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.partition("?")[0] == "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(HTTPStatus.OK, content_type, encode(registry))
                elif self.path in checks:
                    good = checks[self.path]()
                    self._answer(
                        HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
                        "text/plain",
                        b"ok\n" if good else b"not ok\n",
                    )
                else:
                    self._answer(
                        HTTPStatus.NOT_FOUND, "text/plain", b"expected /metrics, /livez or /readyz\n"
                    )

            do_HEAD = do_GET  # noqa: N815 - the names are http.server's

            def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as declared by http.server
                """Probes every second are not worth a line."""

        checks = {"/livez": is_alive, "/readyz": is_ready}

        class Listener(ThreadingHTTPServer):
            """One thread a request, none of which holds the process up."""

            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

        self._server = Listener((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
