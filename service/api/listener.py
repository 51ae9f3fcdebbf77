"""Keeps somebody listening: where a server's accept loop has ended, another server takes its address.

The calls of the server that was lost go on to their end. `accepting` prevents the one loss that is known;
this is for those that are not.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from socket import AI_PASSIVE, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any

import grpc
import structlog
from grpc import aio
from prometheus_client import Counter

from service.api.accepting import Options, Server

_log = structlog.get_logger(__name__)

# Nobody listening for so long is more than an interruption: the process should be started anew.
DOWN_S = 10.0
# Losses closer together than this are a series, in which each waits longer than the one before.
SERIES_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
# A closed socket takes some milliseconds to be gone.
LOOK_S, FREE_S = 0.005, 1.0
# What calls on a server that was lost have at most, and how many such servers there may be.
OLD_S, MOST_OLD = 24 * 3600.0, 4
_UNIX = "unix:"

Register = Callable[[aio.Server], None]


class Listener:
    """A grpc address, and the servers behind it: one that accepts, and those lost that still have calls.

    Args:
        address: HOST:PORT or unix:PATH. Port 0: any free one, which is kept from then on.
        credentials: for TLS; None: in the clear.
        options: grpc's channel arguments.
        register: adds every handler to a server.
        losses: counts accept loops that have ended.
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
        self._server = self._new_server()
        self._old: list[Server] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._is_accepting = False
        self._down_since: float | None = None
        self._series = _Series()

    def is_accepting(self) -> bool:
        """Whether somebody who connects now is answered; any thread may ask."""
        return self._is_accepting

    def is_alive(self) -> bool:
        """Whether somebody listens, or did within the last ten seconds; any thread may ask."""
        since = self._down_since
        return since is None or time.monotonic() - since < DOWN_S

    def bind(self) -> int:
        """Take the address.

        Returns:
            The port; for a socket's path a number that means nothing.
        Raises:
            RuntimeError, grpc.RpcError: it cannot be had.
        """
        port = self._bind(self._server)
        if not self._address.startswith(_UNIX):
            self._address = f"{self._address.rpartition(':')[0]}:{port}"
        return port

    async def start(self) -> None:
        """Begin to accept, and to watch that it goes on."""
        await self._server.start()
        self._is_accepting = True
        self._keeping = asyncio.create_task(self._keep())
        self._keeping.add_done_callback(_tell_end)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; those that still run after the grace, on any server, end with an error."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        self._is_accepting, self._down_since = False, None
        servers = (self._server, *self._old)
        await asyncio.wait({asyncio.create_task(_end(server, grace_s)) for server in servers})

    def _new_server(self) -> Server:
        server = self._make(self._options)
        as_declared: Any = server  # the stubs' Server is not the one that grpcio runs
        self._register(as_declared)
        return server

    def _bind(self, server: Server) -> int:
        if self._credentials is None:
            return server.add_insecure_port(self._address)
        return server.add_secure_port(self._address, self._credentials)

    async def _keep(self) -> None:
        """Replace the server each time that it is lost, until cancelled."""
        while True:
            error = await asyncio.shield(self._server.lost)
            self._is_accepting, self._down_since = False, time.monotonic()
            self._losses.inc()
            reason = type(error).__name__
            _log.error("accepting has ended, listening anew", reason=reason, where=_place_of(error))
            self._let_go(self._server)
            await asyncio.sleep(self._series.pause(time.monotonic()))
            self._server = self._new_server()
            await self._take_over(self._server)
            await self._server.start()
            self._is_accepting, self._down_since = True, None

    def _let_go(self, server: Server) -> None:
        """Close what listens, and let calls run on; of too many such servers the oldest ends its calls."""
        self._old.append(server)
        self._end_soon(server, OLD_S)
        if len(self._old) > MOST_OLD:
            self._end_soon(self._old.pop(0), 0)

    def _end_soon(self, server: Server, grace_s: float) -> None:
        def forget(ended: "asyncio.Task[None]") -> None:
            self._ending.discard(ended)
            if server in self._old:
                self._old.remove(server)

        ending = asyncio.create_task(_end(server, grace_s))
        self._ending.add(ending)
        ending.add_done_callback(forget)

    async def _take_over(self, server: Server) -> None:
        """Bind a server to the address as soon as it is free."""
        pause = LOOK_S
        free_by = time.monotonic() + FREE_S
        while True:
            # Bound while the old sockets close, it could get one of a name's two addresses, or lose its path.
            if time.monotonic() > free_by or await _is_free(self._address):
                try:
                    self._bind(server)
                except (RuntimeError, grpc.RpcError):
                    pause = LONGEST_PAUSE_S
                else:
                    return
            await asyncio.sleep(pause)


class _Series:
    """How long to wait before listening anew: not at all at first, longer while losses are close together."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._pause = 0.0

    def pause(self, now: float) -> float:
        """Seconds to wait after a loss at that time."""
        is_close = now - self._last < SERIES_S
        self._pause = min(max(2 * self._pause, FIRST_PAUSE_S), LONGEST_PAUSE_S) if is_close else 0.0
        self._last = now
        return self._pause


def _tell_end(keeping: "asyncio.Task[None]") -> None:
    """A failure to listen anew that nobody foresaw: liveness tells it after a while, and the log has it."""
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        _log.error("listening anew has failed", exc_info=error)


async def _end(server: Server, grace_s: float) -> None:
    """Stop a server. One that was lost raises its loss at the first try, having closed only what listens."""
    try:
        await server.stop(grace_s)
    except Exception:
        await server.stop(grace_s)


async def _is_free(address: str) -> bool:
    """Whether nobody listens at any of the addresses behind a name, or at a path."""
    if address.startswith(_UNIX):
        return not await asyncio.to_thread(Path(address.removeprefix(_UNIX)).exists)
    host, _, port = address.rpartition(":")
    look_up = asyncio.get_running_loop().getaddrinfo
    try:
        found = await look_up(host.strip("[]"), int(port), type=SOCK_STREAM, flags=AI_PASSIVE)
    except OSError:
        return False
    return _can_bind((family, place) for family, _, _, _, place in found)


def _can_bind(places: Iterable[tuple[int, tuple[object, ...]]]) -> bool:
    for family, place in places:
        with socket(family, SOCK_STREAM) as probe:
            probe.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError:
                return False
    return True


def _place_of(error: BaseException | None) -> str:
    """Where an error was raised; not its text, which may hold a stranger's bytes."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return f"{frames[-1].name}:{frames[-1].lineno}" if frames else ""
