"""Addresses that cannot be listened on, and the reason in a sentence.

gRPC's own error names neither the port nor the cause, so the address is bound once more to learn it.
"""

import errno
import socket
from collections.abc import Iterator

_UNIX = "unix:"
# A name may stand for several addresses; these stop the start even if another of them is free, since callers
# would reach another program, or nothing, at the address that they were given.
_DECISIVE = (errno.EADDRINUSE, errno.EACCES)


def taken(address: str) -> str | None:
    """Return why an address must not be listened on, though a part of it may be free; None: it may be.

    Args:
        address: HOST:PORT, or unix:PATH, which is not looked at.

    Raises:
        socket.gaierror: The name cannot be resolved.
    """
    return next((_sentence(address, code) for code in _failures(address) if code in _DECISIVE), None)


def reason(address: str, error: Exception) -> str:
    """Return why an address cannot be listened on.

    Args:
        address: HOST:PORT or unix:PATH.
        error: What binding it has raised; its text is the reason where no other is found.
    """
    try:
        codes = list(_failures(address))
    except socket.gaierror as unknown:
        return f"the name {_host(address)} has no address: {unknown.strerror}"
    return _sentence(address, codes[0]) if codes else str(error)


def _failures(address: str) -> Iterator[int]:
    """Bind what the address stands for, and yield the error of each that cannot be bound."""
    if address.startswith(_UNIX):
        return
    port = int(address.rpartition(":")[2])
    # "[::]" for all addresses of both kinds is bound as such, like gRPC does.
    found = socket.getaddrinfo(_host(address), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
        except OSError as error:
            yield error.errno or 0


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _sentence(address: str, code: int) -> str:
    port = address.rpartition(":")[2]
    sentences = {
        errno.EADDRINUSE: f"another program, or another seqserve, listens at port {port}; "
        "stop it, or name another port (0: any free one)",
        errno.EACCES: f"this user may not listen at port {port}; name a port of 1024 or more",
        errno.EADDRNOTAVAIL: f"{_host(address)} is no address of this machine; name one of its own, "
        "127.0.0.1 for callers on this machine alone, or 0.0.0.0 for all",
        errno.EAFNOSUPPORT: f"this machine has no addresses of the kind of {_host(address)}",
    }
    return sentences.get(code) or f"{errno.errorcode.get(code, code)}"
