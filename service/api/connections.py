"""Guard of the connections: keeps room for newcomers when open connections approach the limit.

grpc's core refuses connections beyond its limit, whoever holds the open ones, and knows no share of a peer.
Here connections of the peer hosts that hold most are shut down: idle ones above 90 % of the limit, oldest
first; ones with a running call only where the last places are taken. The sockets are found among the
descriptors of the process, as grpc gives no access to them. A process that comes near its descriptor limit
has the same remedy.
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
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, NamedTuple

import structlog
from prometheus_client import Counter

_log = structlog.get_logger(__name__)

# Interval at which open descriptors are counted; longer after all connections were looked at in vain.
INTERVAL_S, QUIET_INTERVAL_S = 0.1, 0.2
# Shares of the limit above which idle connections, and connections with running calls, are shut down.
IDLE_SHARE, BUSY_SHARE = 0.9, 0.99
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
_UNIX = "unix:"


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


def choose(connections: Iterable[Connection], busy: Collection[str], limit: int) -> list[Connection]:
    """Return the connections to shut down, so that there is room for newcomers, at most `MAX_CHOSEN`.

    Only hosts with more than an equal share lose connections: the host that has most, from the longest idle
    on. Connections with a running call are chosen only above `BUSY_SHARE` of the limit, and where no such
    host has another.

    Args:
        connections: all open ones.
        busy: peers with a running call.
        limit: maximum of open connections.
    """
    hosts: dict[str, _Host] = {}
    for one in sorted(connections, key=lambda one: (one.idle_ms, -one.inode)):
        host = hosts.setdefault(one.host, _Host([], []))
        (host.busy if one.peer in busy else host.idle).append(one)
    num_open = sum(host.num_open for host in hosts.values())
    max_open = max(1, min(limit - 1, int(limit * IDLE_SHARE)))
    max_busy = max(1, min(limit - 1, int(limit * BUSY_SHARE)))
    chosen: list[Connection] = []
    while num_open > max_open and len(chosen) < MAX_CHOSEN:
        over = [host for host in hosts.values() if host.num_open > max_open / len(hosts)]
        with_idle = [host for host in over if host.idle]
        if not with_idle and num_open <= max_busy:
            break
        host = max(with_idle or over, key=lambda host: host.num_open)
        chosen.append((host.idle or host.busy).pop())
        num_open -= 1
    return chosen


class _Host(NamedTuple):
    """Connections of one host, the longest idle last."""

    idle: list[Connection]
    busy: list[Connection]

    @property
    def num_open(self) -> int:
        return len(self.idle) + len(self.busy)


class Guard:
    """Shuts connections down while there are nearly as many as there may be.

    Args:
        address: HOST:PORT or unix:PATH that the server listens on, as bound.
        max_connections: maximum of open connections.
        busy: returns the peers with a running call; called in the event loop.
        shut: counts connections that were shut down.
    """

    def __init__(
        self, address: str, max_connections: int, busy: Callable[[], set[str]], shut: Counter
    ) -> None:
        self._max_connections = max_connections
        self._busy = busy
        self._shut = shut
        self._sockets = Sockets(address)
        self._unlogged: Counts[str] = Counts()
        self._logged_at = float("-inf")

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
                near = min(self._max_connections, max_descriptors - SPARE_DESCRIPTORS)
                if len(descriptors) >= IDLE_SHARE * near:
                    arguments = (descriptors, max_descriptors, self._busy())
                    shut = await loop.run_in_executor(thread, self._make_room, *arguments)
                    self._record(shut, loop.time())
                    interval = INTERVAL_S if shut else QUIET_INTERVAL_S

    def _make_room(
        self, descriptors: Collection[int], max_descriptors: int, busy: set[str]
    ) -> list[Connection]:
        """Shut connections down where there are too many; return them."""
        connections = list(self._sockets.find(descriptors))
        num_others = len(descriptors) - len(connections)
        limit = min(self._max_connections, max(1, max_descriptors - SPARE_DESCRIPTORS - num_others))
        chosen = choose(connections, busy, limit)
        return [one for one in chosen if self._sockets.shut_down(one)]

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
    """

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix(_UNIX) if address.startswith(_UNIX) else None
        self._port = 0 if self._path is not None else int(address.rpartition(":")[2])
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._held = os.dup(self._null)

    def find(self, descriptors: Iterable[int]) -> Iterator[Connection]:
        """Yield the connections among descriptors."""
        for descriptor in descriptors:
            found = self._look(descriptor)
            if found is not None:
                yield found

    def shut_down(self, connection: Connection) -> bool:
        """Shut a connection down, which grpc then closes; return False if another has its descriptor."""
        return self._look(connection.descriptor, connection.peer) is not None

    def close(self) -> None:
        """Close the held descriptors."""
        os.close(self._held)
        os.close(self._null)

    def _look(self, descriptor: int, peer: str | None = None) -> Connection | None:
        """Return the connection of a descriptor, or None; with a peer, shut it down, or return None."""
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
            if peer is None or found is None:
                return found
            if found.peer != peer:
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
            is_ours = self._path is not None and found.getsockname() == self._path
            found.getpeername()
            process, *_ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return Connection(descriptor, _UNIX, f"process {process}", 0, inode) if is_ours else None
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
