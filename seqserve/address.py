"""Checks addresses of servers, and finds out whether a proxy of the environment would be used for one.

Pure functions, except that `proxy_variable` is given the environment by its caller.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from seqserve.arguments import refusal, text
from seqserve.errors import WrongValue

_EXAMPLE: Final = "such as 127.0.0.1:50051, dns:///name:50051 or unix:/path"
_PATHS: Final = ("unix", "unix-abstract")
_ENDPOINTS: Final = ("dns", "ipv4", "ipv6")
_OTHERS: Final = ("vsock", "xds", "google-c2p")
_URL: Final = re.compile(r"(https?|grpcs?|tcp)://", re.IGNORECASE)
_ENDPOINT: Final = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:/]+):(?P<port>[0-9]+)")
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY_VARIABLES: Final = ("no_grpc_proxy", "no_proxy")


def check_address(value: object, where: str = "address") -> str:
    """Check the address of a server, and return it; errors name `where` it was given.

    gRPC itself takes nearly any text, and fails much later with a message about name resolution, or calls
    port 443 where none is given.

    Raises:
        WrongType: It is no str.
        WrongValue: It has no port, a scheme of the web, spaces, a path, or a user.
    """
    address = text(where, value)
    if "@" in address:  # may be a user and a password, which the error must not show
        raise refusal(WrongValue, where, f"expected an address {_EXAMPLE}, found a user before an @")
    if not address or not address.isprintable() or any(character.isspace() for character in address):
        raise _refused(where, address, "without spaces and of at least one character")
    if url := _URL.match(address):
        hint = "; credentials=seqserve.tls(...) encrypts" if url[1].lower() in ("https", "grpcs") else ""
        raise _refused(where, address, f"without {url[0]}", hint)
    scheme, rest = _split(address)
    if scheme in _PATHS:
        if not rest.strip("/"):
            raise _refused(where, address, "with a path after unix:")
    elif scheme not in _OTHERS:
        for endpoint in _endpoints(address):
            _check_endpoint(where, address, endpoint)
    return address


def is_local(address: str) -> bool:
    """Return whether an address that was checked is of this machine alone: loopback or a Unix socket."""
    scheme, _ = _split(address)
    return scheme in _PATHS or (scheme not in _OTHERS and all(map(_is_loopback, _hosts(address))))


def proxy_variable(address: str, environment: Mapping[str, str]) -> str | None:
    """Return the name of the environment variable whose proxy gRPC uses for an address, or None.

    gRPC takes the first of grpc_proxy, https_proxy and http_proxy that is set, unless no_grpc_proxy, or else
    no_proxy, lists the end of the host's name.
    """
    if is_local(address):
        return None
    found = next((name for name in _PROXY_VARIABLES if environment.get(name)), None)
    spared = next((environment[name] for name in _NO_PROXY_VARIABLES if environment.get(name)), "")
    suffixes = [each.strip().lower() for each in spared.split(",") if each.strip()]
    hosts = _hosts(address)
    if hosts and all(any(host.lower().endswith(suffix) for suffix in suffixes) for host in hosts):
        return None
    return found


def _split(address: str) -> tuple[str, str]:
    """Return the scheme, empty if there is none, and the rest."""
    scheme, colon, rest = address.partition(":")
    is_scheme = bool(colon) and scheme in (*_PATHS, *_ENDPOINTS, *_OTHERS)
    return (scheme, rest) if is_scheme else ("", address)


def _endpoints(address: str) -> list[str]:
    scheme, rest = _split(address)
    if rest.startswith("//"):  # dns://resolver/name:port
        rest = rest[2:].partition("/")[2]
    elif scheme:
        rest = rest.removeprefix("/")
    return rest.split(",") if scheme in ("ipv4", "ipv6") else [rest]


def _hosts(address: str) -> list[str]:
    scheme, _ = _split(address)
    if scheme in (*_PATHS, *_OTHERS):
        return []
    return [endpoint.rpartition(":")[0].strip("[]") for endpoint in _endpoints(address)]


def _check_endpoint(where: str, address: str, endpoint: str) -> None:
    if endpoint.count(":") > 1 and not endpoint.startswith("["):
        raise _refused(where, address, "with brackets around an IPv6 address", "; such as [::1]:50051")
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        what = "without a path" if "/" in endpoint else "with a host and a port"
        raise _refused(where, address, what)
    if not 1 <= int(found["port"][:6]) <= 65535:
        raise _refused(where, address, "with a port from 1 to 65535")


def _refused(where: str, address: str, what: str, hint: str = "") -> WrongValue:
    return refusal(
        WrongValue, where, f"expected an address {what}, {_EXAMPLE}, found {address[:200]!r}{hint}"
    )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False
