"""Guard of the connections: keeps room for newcomers when open connections approach the limit.

grpc's core refuses connections beyond its limit, whoever holds the open ones, and knows no share of a peer.
Here connections of the peer hosts that hold most are shut down: above 90 % of the limit those that neither
calls nor data use, and only where the last places are taken those in use (`Kind`). grpc's own limit is a
little higher (`max_accepted`), so that a newcomer is accepted and this choice made. The sockets are found
among the descriptors of the process, as grpc gives no access to them. A process that comes near its
descriptor limit has the same remedy.
"""

import asyncio
import os
import resource
import socket
import stat
import struct
from collections import Counter as Counts
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Any

import structlog
from prometheus_client import Counter

from service.addresses import UNIX

_log = structlog.get_logger(__name__)

# Interval at which open descriptors are counted; longer after all connections were looked at in vain.
INTERVAL_S, QUIET_INTERVAL_S = 0.1, 0.2
# Shares of the limit above which connections that are not in use, and those in use, are shut down.
IDLE_SHARE, BUSY_SHARE = 0.9, 0.99
# Milliseconds without data after which a connection without a call, and one with a call, are not in use.
IDLE_MS, STALLED_MS = 1000, 10_000
# grpc accepts so many more connections than there may be, at least and as a part of them.
MIN_MARGIN, MARGIN_DIVISOR = 16, 10
# Connections shut down at once.
MAX_CHOSEN = 1000
# Descriptors kept free of connections: for files, models and probes.
SPARE_DESCRIPTORS = 8
# At most one log line in so many seconds.
LOG_INTERVAL_S = 10.0
_DESCRIPTORS = "/proc/self/fd"
# Where /proc cannot be read for want of a descriptor, numbers up to this are tried.
_MAX_NUMBER = 1 << 16
# Offsets in struct tcp_info of the milliseconds since data was sent and received.
_TCP_INFO, _SENT, _RECEIVED = 60, 44, 52


@dataclass(frozen=True, slots=True)
class Connection:
    """Open connection of the gRPC port.

    Attributes:
        descriptor: number of its descriptor in this process.
        peer: address as grpc's `context.peer()` has it.
        host: the peer without its port, of IPv6 the /64 network, of a unix socket the process.
        idle_ms: milliseconds since data was sent or received; 0 for a unix socket.
        inode: number of its socket; later sockets mostly have larger ones.
    """

    descriptor: int
    peer: str
    host: str
    idle_ms: int
    inode: int


class Kind(IntEnum):
    """Use of a connection; those of a smaller kind are shut down first.

    IDLE has no call and had no data for `IDLE_MS`, STALLED has a call and had none for `STALLED_MS`. PAUSED
    has no call, but data since; CALLING has a call with data since.
    """

    IDLE, STALLED, PAUSED, CALLING = range(4)


_NOT_IN_USE = (Kind.IDLE, Kind.STALLED)


def kind_of(connection: Connection, busy: Collection[str]) -> Kind:
    """Return the use of a connection, given the peers with a running call."""
    if connection.peer in busy:
        return Kind.STALLED if connection.idle_ms >= STALLED_MS else Kind.CALLING
    return Kind.IDLE if connection.idle_ms >= IDLE_MS else Kind.PAUSED


def max_accepted(max_connections: int) -> int:
    """Return the limit for grpc's core: above that of the guard, as far as there are descriptors for it."""
    more = max_connections + max(MIN_MARGIN, max_connections // MARGIN_DIVISOR)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(max_connections, min(more, descriptors - SPARE_DESCRIPTORS))


def choose(connections: Iterable[Connection], busy: Collection[str], limit: int) -> list[Connection]:
    """Return the connections to shut down, so that there is room for newcomers, at most `MAX_CHOSEN`.

    Only hosts with more than an equal share lose connections. The first kind that such a host has goes first,
    of it the host that has most connections, of these the longest idle. Those in use are chosen only above
    `BUSY_SHARE` of the limit.

    Args:
        connections: all open ones.
        busy: peers with a running call.
        limit: maximum of open connections.
    """
    hosts: dict[str, _Host] = {}
    for one in sorted(connections, key=lambda one: (one.idle_ms, -one.inode)):
        hosts.setdefault(one.host, _Host()).add(one, kind_of(one, busy))
    num_open = sum(host.num_open for host in hosts.values())
    max_open = max(1, min(limit - 1, int(limit * IDLE_SHARE)))
    max_busy = max(1, min(limit - 1, int(limit * BUSY_SHARE)))
    chosen: list[Connection] = []
    while num_open > max_open and len(chosen) < MAX_CHOSEN:
        over = [host for host in hosts.values() if host.num_open > max_open / len(hosts)]
        kinds = Kind if num_open > max_busy else _NOT_IN_USE
        kind = next((kind for kind in kinds if any(host.of_kind[kind] for host in over)), None)
        if kind is None:
            break
        host = max((host for host in over if host.of_kind[kind]), key=lambda host: host.num_open)
        chosen.append(host.pop(kind))
        num_open -= 1
    return chosen


@dataclass(slots=True)
class _Host:
    """Connections of one host, of each kind the longest idle last, and their number."""

    of_kind: tuple[list[Connection], ...] = field(default_factory=lambda: tuple([] for _ in Kind))
    num_open: int = 0

    def add(self, connection: Connection, kind: Kind) -> None:
        self.of_kind[kind].append(connection)
        self.num_open += 1

    def pop(self, kind: Kind) -> Connection:
        self.num_open -= 1
        return self.of_kind[kind].pop()


class Guard:
    """Shuts connections down while there are nearly as many as there may be.

    Args:
        address: HOST:PORT or unix:PATH that the server listens on, as bound.
        max_connections: maximum of open connections.
        busy: returns the peers with a running call; called in the event loop.
        shut: counts connections that were shut down.
        socket_names: see `Sockets`.
    """

    def __init__(
        self,
        address: str,
        max_connections: int,
        busy: Callable[[], set[str]],
        shut: Counter,
        socket_names: Collection[str] = (),
    ) -> None:
        self._max_connections = max_connections
        self._busy = busy
        self._shut = shut
        self._sockets = Sockets(address, socket_names)
        self._to_cut: set[str] = set()
        self._unlogged: Counts[str] = Counts()
        self._logged_at = float("-inf")

    def cut_off(self, peers: set[str]) -> None:
        """Shut the connections of peers down within `INTERVAL_S`, whatever runs on them."""
        self._to_cut |= peers

    async def run(self) -> None:
        """Watch the number of open descriptors until cancelled."""
        if not os.path.isdir(_DESCRIPTORS):  # noqa: ASYNC240 -- once, and no disk
            _log.warning("connections have no guard on this system", needs=_DESCRIPTORS)
            return
        loop = asyncio.get_running_loop()
        interval = INTERVAL_S
        with closing(self._sockets), ThreadPoolExecutor(1, "connections") as thread:
            while True:
                await asyncio.sleep(interval)
                interval = INTERVAL_S
                max_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                descriptors = _descriptors(max_descriptors)
                if self._to_cut:
                    peers, self._to_cut = self._to_cut, set()
                    self._record(
                        await loop.run_in_executor(thread, self._cut, descriptors, peers), loop.time()
                    )
                near = min(self._max_connections, max_descriptors - SPARE_DESCRIPTORS)
                if len(descriptors) >= IDLE_SHARE * near:
                    shut = await self._make_room(thread, descriptors, max_descriptors)
                    self._record(shut, loop.time())
                    interval = INTERVAL_S if shut else QUIET_INTERVAL_S

    def _cut(self, descriptors: Collection[int], peers: set[str]) -> list[Connection]:
        theirs = [one for one in self._sockets.find(descriptors) if one.peer in peers]
        return [one for one in theirs if self._sockets.shut_down(one, despite_data=True)]

    async def _make_room(
        self, thread: ThreadPoolExecutor, descriptors: Collection[int], max_descriptors: int
    ) -> list[Connection]:
        """Shut connections down where there are too many; return them."""
        run = asyncio.get_running_loop().run_in_executor
        busy = self._busy()
        chosen = await run(thread, self._choose, descriptors, max_descriptors, busy)
        if not chosen:
            return []
        # Looking at a thousand sockets takes tens of milliseconds, in which calls begin.
        begun = self._busy() - busy
        return await run(thread, self._shut_down, chosen, busy, begun)

    def _choose(self, descriptors: Collection[int], max_descriptors: int, busy: set[str]) -> list[Connection]:
        connections = list(self._sockets.find(descriptors))
        num_others = len(descriptors) - len(connections)
        limit = min(self._max_connections, max(1, max_descriptors - SPARE_DESCRIPTORS - num_others))
        return choose(connections, busy, limit)

    def _shut_down(self, chosen: list[Connection], busy: set[str], begun: set[str]) -> list[Connection]:
        """Shut down the chosen connections on which neither a call nor data has come meanwhile.

        One that was calling already is shut down whatever comes, or data would keep it from ever being.
        """
        return [
            one
            for one in chosen
            if one.peer not in begun
            and self._sockets.shut_down(one, despite_data=kind_of(one, busy) is Kind.CALLING)
        ]

    def _record(self, shut: list[Connection], now: float) -> None:
        """Count what was shut down; log it now or, soon after another line, with the next one."""
        self._shut.inc(len(shut))
        self._unlogged.update(one.host for one in shut)
        if self._unlogged and now - self._logged_at >= LOG_INTERVAL_S:
            host, number = self._unlogged.most_common(1)[0]
            _log.warning(
                "connections shut down to make room for others",
                connections=self._unlogged.total(),
                most_from=host,
                of_these=number,
            )
            self._unlogged.clear()
            self._logged_at = now


class Sockets:
    """Finds and shuts down this process's connections of one listening address, in one thread at a time.

    A descriptor may be closed and its number given away at any time. So each is first duplicated onto a
    descriptor that is held for this: what is looked at is what is shut down, and no free one is needed.

    Args:
        address: HOST:PORT or unix:PATH.
        socket_names: names that the sockets of unix:PATH were bound as, now and later.
    """

    def __init__(self, address: str, socket_names: Collection[str] = ()) -> None:
        self._names = socket_names
        self._port = 0 if address.startswith(UNIX) else int(address.rpartition(":")[2])
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._held = os.dup(self._null)

    def find(self, descriptors: Iterable[int]) -> Iterator[Connection]:
        """Yield the connections among descriptors."""
        for descriptor in descriptors:
            found = self._look(descriptor)
            if found is not None:
                yield found

    def shut_down(self, connection: Connection, despite_data: bool = False) -> bool:
        """Shut a connection down, which grpc then closes.

        Returns:
            False if it was left alone: another has its descriptor, or, unless `despite_data`, data came or
            went since it was found.
        """

        def is_meant(found: Connection) -> bool:
            is_quiet = despite_data or found.idle_ms >= connection.idle_ms
            return found.peer == connection.peer and is_quiet

        return self._look(connection.descriptor, is_meant) is not None

    def close(self) -> None:
        """Close the held descriptors."""
        os.close(self._held)
        os.close(self._null)

    def _look(
        self, descriptor: int, is_meant: Callable[[Connection], bool] | None = None
    ) -> Connection | None:
        """Return the connection of a descriptor, or None; one that is meant is shut down, another is None."""
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                return None
            os.dup2(descriptor, self._held)
            inode = os.fstat(self._held).st_ino
            held = socket.socket(fileno=self._held)
        except OSError:  # closed meanwhile
            return None
        try:
            found = self._connection(held, descriptor, inode)
            if is_meant is None or found is None:
                return found
            if not is_meant(found):
                return None
            held.shutdown(socket.SHUT_RDWR)
        except OSError:  # listening, or closed by the peer
            return None
        else:
            return found
        finally:
            held.detach()
            os.dup2(self._null, self._held)

    def _connection(self, found: socket.socket, descriptor: int, inode: int) -> Connection | None:
        if found.family == socket.AF_UNIX:
            is_ours = found.getsockname() in self._names
            found.getpeername()
            process, *_ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return Connection(descriptor, UNIX, f"process {process}", 0, inode) if is_ours else None
        if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] != self._port:
            return None
        host, peer = peer_of(found.getpeername())
        information = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO)
        times = (struct.unpack_from("=I", information, offset)[0] for offset in (_SENT, _RECEIVED))
        return Connection(descriptor, peer, host, min(times), inode)


def peer_of(address: Any) -> tuple[str, str]:
    """Return the host of a socket's address, and the address as grpc's `context.peer()` has it."""
    host, port = address[0].removeprefix("::ffff:"), address[1]
    if ":" not in host:
        return host, f"ipv4:{host}:{port}"
    network = IPv6Address(host.partition("%")[0]).exploded[:19]
    return network, f"ipv6:%5B{host}%5D:{port}"


def _descriptors(max_descriptors: int) -> list[int]:
    """Return the open descriptors; at the descriptor limit, where none is left to read them, all numbers."""
    try:
        return [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:
        return [number for number in range(min(max_descriptors, _MAX_NUMBER)) if _is_open(number)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
