"""Addresses that are listened on: what they stand for, whether it is free, and why not, in a sentence.

gRPC's own error names neither the port nor the cause, so the address is bound once more to learn it.
"""

import errno
import re
import socket
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from typing import Any

# The beginning of an address that is the path of a Unix socket.
UNIX = "unix:"
# A family of addresses that this machine does not have; another address of the name may do.
MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# A name may stand for several addresses; these stop the start even if another of them is free, since callers
# would reach another program, or nothing, at the address that they were given.
_DECISIVE = (errno.EADDRINUSE, errno.EACCES)

# Labels of 1 to 63 characters, as names are looked up by. Abstract sockets have no permissions.
_HOST = re.compile(
    r"(?!unix-abstract$)(?=.{1,253}$)[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?"
)

# The family of an address, and the address as sockets take it.
Place = tuple[int, tuple[Any, ...]]


def is_public(address: str) -> bool:
    """Return True if other machines can connect to the address.

    A host name other than localhost counts as public, whatever it resolves to.
    """
    if address.startswith(UNIX):
        return False
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def is_host(text: str) -> bool:
    """Return True for a host name, an IPv4 address, and an IPv6 address in brackets."""
    if text.startswith("[") and text.endswith("]"):
        try:
            IPv6Address(text[1:-1])
        except ValueError:
            return False
        return True
    return _HOST.fullmatch(text) is not None


def is_same_port(first: str, second: str) -> bool:
    """Return True if two addresses have the same port on hosts that overlap."""
    (first_host, _, first_port), (second_host, _, second_port) = first.rpartition(":"), second.rpartition(":")
    if first.startswith(UNIX) or int(first_port) != int(second_port) or int(first_port) == 0:
        return False
    hosts = {first_host.lower(), second_host.lower()}
    is_local = "localhost" in hosts and not is_public(first) and not is_public(second)
    return len(hosts) == 1 or is_local or bool(hosts & {"0.0.0.0", "[::]"})  # noqa: S104 -- compared


def resolved(host: str, port: int) -> list[Place]:
    """Return the addresses that a host stands for, each once.

    Args:
        host: Name or address, without brackets.
        port: Port of each address.

    Raises:
        socket.gaierror: The name cannot be resolved.
    """
    # gRPC takes localhost for both, whatever the machine's table of hosts says.
    if host.lower() == "localhost":
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), place) for family, _, _, _, place in found))


def is_free(address: str) -> bool:
    """Return whether all that an address stands for can be bound, the families apart that this machine lacks.

    Args:
        address: HOST:PORT, or unix:PATH, which is not looked at.

    Raises:
        socket.gaierror: The name cannot be resolved.
    """
    return not _failures(address)


def taken(address: str) -> str | None:
    """Return why an address must not be listened on, though a part of it may be free; None: it may be.

    Args:
        address: HOST:PORT, or unix:PATH, which is not looked at.

    Raises:
        socket.gaierror: The name cannot be resolved.
    """
    code = _decisive(_failures(address))
    return None if code is None else _sentence(address, code)


def reason(address: str, error: Exception) -> str:
    """Return why an address cannot be listened on.

    Args:
        address: HOST:PORT or unix:PATH.
        error: What binding it has raised; its text is the reason where no other is found.
    """
    try:
        codes = _failures(address)
    except socket.gaierror as unknown:
        return f"the name {_host(address)} has no address: {unknown.strerror}"
    if not codes:
        return str(error)
    code = _decisive(codes)
    return _sentence(address, codes[0] if code is None else code)


def _failures(address: str) -> list[int]:
    """Bind all that an address stands for, and return the error of each that cannot be bound.

    A family that this machine lacks is a failure only where it lacks every one.
    """
    if address.startswith(UNIX):
        return []
    # "[::]" for all addresses of both kinds is bound as such, like gRPC does.
    codes = [_failure(*place) for place in resolved(_host(address), int(address.rpartition(":")[2]))]
    found = [code for code in codes if code is not None]
    return found if all(code in MISSING for code in codes) else [one for one in found if one not in MISSING]


def _failure(family: int, place: tuple[Any, ...]) -> int | None:
    """Return the error of binding, and of making the socket: where there is no IPv6, that fails already."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A server that has just ended leaves connections behind, which are in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return error.errno or 0
    return None


def _decisive(codes: Collection[int]) -> int | None:
    return next((code for code in codes if code in _DECISIVE), None)


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
