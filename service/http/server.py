"""HTTP server in a thread with an event loop of its own.

It answers even while the main event loop is blocked, and nothing of HTTP holds that loop up. The application
is any ASGI application; uvicorn's protocol carries it.
"""

import asyncio
import logging
import socket
import ssl
import threading
from typing import Any

from uvicorn import Config
from uvicorn.server import ServerState

from service.http.addresses import listen
from service.http.connection import Connection, ConnectionLimits, OpenConnections

_log = logging.getLogger(__name__)

# Connections that wait to be accepted, seconds until accepting is tried again, and between its log lines.
BACKLOG, RETRY_S, LOG_INTERVAL_S = 128, 0.1, 10.0
# Seconds for answers to be complete once the server stops, and passes of the event loop after which what was
# aborted then, TLS included, is gone.
FLUSH_S, GONE_PASSES = 0.5, 5
# Bytes of an answer that the kernel takes before its peer does, as many as gRPC lets wait.
SEND_BUFFER_BYTES = 64 << 10


class HttpServer:
    """HTTP server, running from `start` to `stop`.

    Args:
        host: name or address to listen on; of a name every address that it resolves to.
        port: port to listen on; 0 picks a free one.
        limits: limits on connections.
        tls: context of TLS; None: plaintext.

    Attributes:
        port: port that is listened on.
        loop: event loop that runs the application.

    Raises:
        OSError: the address is not available.
    """

    def __init__(
        self, host: str, port: int, limits: ConnectionLimits, tls: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits
        self._tls = tls
        self._sockets = listen(host, port, BACKLOG)
        for one in self._sockets:
            # Accepted sockets inherit both. Without the second one the body of an answer waits some 40 ms for
            # the peer to acknowledge the head, which is written before it.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._sockets[0].getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._state = ServerState()
        self._connections = OpenConnections(limits.max_connections)
        self._opening: dict[asyncio.Task[None], None] = {}
        self._logged_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self, app: Any) -> None:
        """Start answering requests with an ASGI application."""
        self._config = Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # what peers send is no event of the server
            access_log=False,
            proxy_headers=False,  # else whoever sends them chooses the address that it seems to have
            server_header=False,
            date_header=False,
            timeout_keep_alive=max(1, round(self._limits.idle_s)),
            h11_max_incomplete_event_size=self._limits.max_head_bytes,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, let answers end for a moment, and wait for the thread to end."""
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        accepting = [asyncio.create_task(self._accept(one)) for one in self._sockets]
        await self._stopping.wait()
        for task in (*accepting, *self._opening):
            task.cancel()
        for listening in self._sockets:
            listening.close()
        for connection in self._connections:
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=FLUSH_S)
        for connection in self._connections:
            connection.transport.abort()
        # A request whose connection is gone ends quietly; the runner cancels its task.
        for _ in range(GONE_PASSES):
            await asyncio.sleep(0)

    async def _accept(self, listening: socket.socket) -> None:
        """Accept connections one at a time; where there are many, each closes another before the next."""
        while True:
            try:
                accepted, _ = await self.loop.sock_accept(listening)
                if self._tls is None:
                    await self._connect(accepted)
                else:
                    await self._connect_later(accepted)
            except OSError as error:  # mostly no descriptor is left
                if self.loop.time() - self._logged_at >= LOG_INTERVAL_S:
                    _log.warning("the HTTP port cannot accept connections", exc_info=error)
                    self._logged_at = self.loop.time()
                await asyncio.sleep(RETRY_S)

    async def _connect_later(self, accepted: socket.socket) -> None:
        """Shake hands in a task of its own; where too many do, the oldest one is closed."""
        opening = asyncio.create_task(self._shake_hands(accepted))
        self._opening[opening] = None
        opening.add_done_callback(lambda done: self._opening.pop(done, None))
        if len(self._opening) > self._connections.limit:
            next(iter(self._opening)).cancel()
        await asyncio.sleep(0)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await self._connect(accepted)
        except (OSError, asyncio.CancelledError):  # a peer that speaks no TLS, or is too slow, is normal
            accepted.close()

    async def _connect(self, accepted: socket.socket) -> None:
        """Make a connection of a socket, after the handshake where there is TLS."""
        handshake_s = None if self._tls is None else self._limits.head_s
        try:
            await self.loop.connect_accepted_socket(
                self._protocol, accepted, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except OSError:
            accepted.close()
            raise

    def _protocol(self) -> Connection:
        return Connection(self._config, self._state, self._limits, self._connections)
