"""Connections of the HTTP port: uvicorn's protocol, with limits on time and number that uvicorn lacks.

uvicorn bounds the head of a request in bytes and the time between two requests. Here the time for a head, the
time in which a peer must take what was sent, and the number of connections are bounded as well. A connection
costs no thread, and one that is slow or silent makes room for a newcomer.
"""

import asyncio
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

# Open connections are at most this part of the descriptors that the process may have.
DESCRIPTOR_SHARE = 8
# This part of the connections, and one at least, is never in use by calls, so that probes are always taken.
_PROBE_PART = 4


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the HTTP port.

    Attributes:
        max_connections: maximum of open connections.
        head_s: seconds for the head of a request, from its first byte, or from the opening of its connection.
        idle_s: seconds between two requests, and for a peer to take what was sent.
        max_head_bytes: maximum size of the head of a request.
    """

    max_connections: int = 256
    head_s: float = 5.0
    idle_s: float = 60.0
    max_head_bytes: int = 16 << 10


class OpenConnections:
    """Open connections, the one that has been without a request for the longest first.

    Args:
        max_connections: maximum; there are fewer where the process may have few descriptors.
    """

    def __init__(self, max_connections: int) -> None:
        self._max = max_connections
        self._open: dict[Connection, None] = {}
        self._held: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator["Connection"]:
        return iter(tuple(self._open))

    @property
    def limit(self) -> int:
        """Maximum of open connections at present."""
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return max(2, min(self._max, descriptors // DESCRIPTOR_SHARE))

    @property
    def max_held(self) -> int:
        """Maximum of connections that calls hold at present."""
        limit = self.limit
        return limit - max(1, limit // _PROBE_PART)

    def add(self, connection: "Connection") -> None:
        """Add a connection; where there are too many, abort the first one that no call holds."""
        self._open[connection] = None
        if len(self._open) > self.limit:
            idle = next((one for one in self._open if one not in self._held), connection)
            self.remove(idle)
            idle.transport.abort()

    def renew(self, connection: "Connection") -> None:
        """Note that a connection has begun a request."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def hold(self, connection: "Connection") -> bool:
        """Keep a connection open for a call; return False where calls hold as many as they may."""
        if connection in self._open and len(self._held) < self.max_held:
            self._held.add(connection)
            return True
        return False

    def let_go(self, connection: "Connection") -> None:
        """Hold a connection no longer, held or not."""
        self._held.discard(connection)

    def remove(self, connection: "Connection") -> None:
        """Remove a connection that has ended, added or not."""
        self._open.pop(connection, None)
        self._held.discard(connection)


class Connection(H11Protocol):
    """One connection of the HTTP port.

    The application finds it in the scope's state as `connection`.

    Args:
        config: uvicorn's configuration, with the application.
        state: what uvicorn's connections share.
        limits: limits on times.
        connections: open connections.
    """

    cycle: Any  # None before the first request, which uvicorn does not declare

    def __init__(
        self, config: Config, state: ServerState, limits: ConnectionLimits, connections: OpenConnections
    ) -> None:
        super().__init__(config, state, {"connection": self})
        self._limits = limits
        self._open_connections = connections
        self._counted_cycle: Any = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and expect the head of a request."""
        super().connection_made(transport)
        # What the kernel does not take holds the answer back. asyncio's TLS takes a limit of 0 for one that
        # is reached already.
        transport.set_write_buffer_limits(1, 0)
        self._expect_head()
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its timers."""
        self._open_connections.remove(self)
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the peer; where they complete no head, the time for it goes on."""
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        """Go on with requests that have come already."""
        self._open_connections.let_go(self)
        super().on_response_complete()
        self._follow()

    def hold(self) -> bool:
        """Keep the connection open until the answer is complete; return False where too many are kept."""
        return self._open_connections.hold(self)

    @property
    def max_held(self) -> int:
        """Maximum of connections that are kept for calls at present."""
        return self._open_connections.max_held

    @property
    def is_answering(self) -> bool:
        """True while a request has been read whose answer is not complete."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete

    def pause_writing(self) -> None:
        """Give the peer some time to take what was sent."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.idle_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the peer has taken everything."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; in the middle of a request or an answer, end the connection."""
        if self.conn.our_state is h11.IDLE:
            super().send_400_response(msg)
        else:
            self.cut()

    def cut(self) -> None:
        """End the connection at once, in the middle of a request or an answer."""
        if self.is_answering:
            self.cycle.disconnected = True  # what is sent from now on is dropped
            self.cycle.message_event.set()
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection, after the answer that it waits for."""
        if self.is_answering:
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _follow(self) -> None:
        """Set the time for a head, unless a request is being answered."""
        if self.transport.is_closing():
            return
        if not self.is_answering:
            if self._has_part_of_request() and self._head_timer is None:
                self._expect_head()
            return
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._counted_cycle is not self.cycle:
            self._counted_cycle = self.cycle
            self._open_connections.renew(self)

    def _has_part_of_request(self) -> bool:
        """Return whether a head has begun, or the body of a request that was answered is still coming."""
        return bool(self.conn.trailing_data[0]) or self.conn.their_state is h11.SEND_BODY

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_s, self.transport.abort)

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
