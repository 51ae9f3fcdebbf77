"""Opens listening sockets on every address that a host name resolves to, as gRPC does."""

import errno
import socket
from collections.abc import Sequence
from typing import Any

from service.addresses import MISSING, Place, resolved

# Where a free port is taken by chance on one address, it may be in use on another.
_TRIES = 10


def listen(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return a listening socket for each address of a host, all with the same port.

    Args:
        host: name or address; :: is every address of IPv6 and IPv4.
        port: port; 0 picks a free one.
        backlog: connections that wait to be accepted.

    Raises:
        OSError: the name does not resolve, none of its addresses is this machine's, or one is in use.
    """
    places = resolved(host, port)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _listen_on_all(places, port, backlog)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _listen_on_all(places: Sequence[Place], port: int, backlog: int) -> list[socket.socket]:
    """Listen on each address that this machine has; close what was opened if one of them fails."""
    opened: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, (name, _, *scope) in places:
            try:
                opened.append(_listen(family, (name, port, *scope), backlog))
            except OSError as error:
                if error.errno not in MISSING:
                    raise
                missing = error
            else:
                port = opened[0].getsockname()[1]
        if missing is not None and not opened:
            raise missing
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def _listen(family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
    is_dual = address[0] == "::" and socket.has_dualstack_ipv6()
    made = socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=is_dual)
    made.setblocking(False)
    return made
