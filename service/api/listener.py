"""Replacement of a grpc server that has ceased to accept calls: another server takes its address.

The calls of the lost server run to their end.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Collection
from functools import partial
from socket import gaierror

import grpc
import structlog
from prometheus_client import Counter

from service import addresses
from service.api.socket_path import SocketPath
from service.transport.server import Options, Server

_log = structlog.get_logger(__name__)

# Liveness fails after so long without a listening server, so that the process is restarted.
DOWN_S = 10.0
# The pause before a restart grows while losses are closer together than this.
SERIES_S = 10.0
MIN_PAUSE_S, MAX_PAUSE_S = 0.05, 0.5
# A closed socket frees its address after some milliseconds; after `FREE_S` binding is tried regardless.
POLL_S, FREE_S = 0.005, 1.0
# Time left to calls of a lost server, and the number of lost servers that may have calls.
OLD_S, MAX_OLD = 24 * 3600.0, 4

Register = Callable[[Server], None]


class Listener:
    """Grpc address with the server that accepts, and lost servers that still have calls.

    Args:
        address: HOST:PORT or unix:PATH. Port 0: any free port, kept from then on.
        credentials: TLS credentials; None: plaintext.
        options: grpc's channel arguments.
        register: adds every handler to a server.
        losses: counts servers that have ceased to accept calls.
        make: makes a server that does not listen yet.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ServerCredentials | None,
        options: Options,
        register: Register,
        losses: Counter,
        make: Callable[[Options], Server] = Server,
    ) -> None:
        self._address = address
        self._credentials = credentials
        self._options = options
        self._register = register
        self._losses = losses
        self._make = make
        self._path = SocketPath(address) if address.startswith(addresses.UNIX) else None
        self._server = self._new_server()
        self._old: list[Server] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._is_accepting = False
        self._down_since: float | None = None
        self._series = _Series()

    @property
    def address(self) -> str:
        """Address that is listened on; once bound, with its port."""
        return self._address

    @property
    def socket_names(self) -> Collection[str]:
        """Names of Unix sockets that are listened on, which their connections tell as their own address."""
        return self._path.names if self._path is not None else ()

    def is_accepting(self) -> bool:
        """Return, in any thread, whether new connections are accepted."""
        return self._is_accepting

    def is_alive(self) -> bool:
        """Return, in any thread, whether a server listens or did within the last `DOWN_S` seconds."""
        since = self._down_since
        return since is None or time.monotonic() - since < DOWN_S

    def bind(self) -> int:
        """Bind the address.

        Returns:
            The port; meaningless for a socket's path.

        Raises:
            OSError, RuntimeError, grpc.RpcError: the address cannot be bound.
        """
        port = self._bind(self._server)
        if self._path is None:
            self._address = f"{self._address.rpartition(':')[0]}:{port}"
        return port

    async def start(self) -> None:
        """Accept calls, and replace the server whenever it ceases to do so."""
        self._server.start()
        self._is_accepting = True
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(_log_error)

    async def calls_ended(self) -> None:
        """Wait until the calls of every server have ended, answers that a peer takes slowly included."""
        for server in (self._server, *self._old):
            await server.calls_ended()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and cancel the calls that still run after the grace, on any server."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        self._is_accepting, self._down_since = False, None
        self._remove_path()
        servers = (self._server, *self._old)
        await asyncio.wait({asyncio.create_task(server.stop(grace_s)) for server in servers})

    def _new_server(self) -> Server:
        server = self._make(self._options)
        self._register(server)
        return server

    def _bind(self, server: Server) -> int:
        add = partial(server.add_port, credentials=self._credentials)
        return self._path.bind(add) if self._path is not None else add(self._address)

    def _remove_path(self) -> None:
        """Remove the socket's path; where that fails, whoever comes next takes it over."""
        if self._path is None:
            return
        try:
            self._path.remove()
        except OSError as error:
            _log.warning("the socket's path cannot be removed", reason=str(error))

    async def _keep(self) -> None:
        """Replace the server each time it is lost, until cancelled."""
        while True:
            error = await asyncio.shield(self._server.lost)
            self._is_accepting, self._down_since = False, time.monotonic()
            self._losses.inc()
            reason = type(error).__name__
            _log.error("accepting has ended, listening anew", reason=reason, where=_frame_of(error))
            self._retire(self._server)
            await asyncio.sleep(self._series.pause(time.monotonic()))
            self._server = self._new_server()
            await self._take_over(self._server)
            self._server.start()
            self._is_accepting, self._down_since = True, None

    def _retire(self, server: Server) -> None:
        """Close a lost server's sockets and let its calls run; beyond MAX_OLD, cancel those of the oldest."""
        self._old.append(server)
        self._end_soon(server, OLD_S)
        if len(self._old) > MAX_OLD:
            self._end_soon(self._old.pop(0), 0)

    def _end_soon(self, server: Server, grace_s: float) -> None:
        def forget(ended: "asyncio.Task[None]") -> None:
            self._ending.discard(ended)
            if server in self._old:
                self._old.remove(server)

        ending = asyncio.create_task(server.stop(grace_s))
        self._ending.add(ending)
        ending.add_done_callback(forget)

    async def _take_over(self, server: Server) -> None:
        """Bind a server to the address as soon as it is free."""
        pause = POLL_S
        free_by = time.monotonic() + FREE_S
        while True:
            # While old sockets close, binding could get one of two addresses; a path is replaced at once.
            if self._path is not None or time.monotonic() > free_by or await _is_free(self._address):
                try:
                    self._bind(server)
                except (OSError, RuntimeError, grpc.RpcError):
                    pause = MAX_PAUSE_S
                else:
                    return
            await asyncio.sleep(pause)


class _Series:
    """Pause before listening again: none after a single loss, doubled while losses are close together."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._pause = 0.0

    def pause(self, now: float) -> float:
        """Return the seconds to wait after a loss at time `now`."""
        is_close = now - self._last < SERIES_S
        self._pause = min(max(2 * self._pause, MIN_PAUSE_S), MAX_PAUSE_S) if is_close else 0.0
        self._last = now
        return self._pause


def _log_error(keeping: "asyncio.Task[None]") -> None:
    """Log an unexpected error that has ended the replacing; liveness fails after `DOWN_S`."""
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        _log.error("listening anew has failed", exc_info=error)


async def _is_free(address: str) -> bool:
    """Return whether every address that a name resolves to is free.

    A thread finds out, since looking up a name may take seconds. While the name has no address, or no thread
    is to be had in time, the answer is False.
    """
    try:
        async with asyncio.timeout(FREE_S):
            return await asyncio.to_thread(addresses.is_free, address)
    except (gaierror, TimeoutError, RuntimeError):
        return False


def _frame_of(error: BaseException | None) -> str:
    """Return the function and line that raised; the error's text may hold bytes of the client."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
