"""Keeps other web sites away from the playground, and the playground away from other hosts.

Any web site that a user visits can send its browser to an address of this machine. A site whose name is made
to resolve to 127.0.0.1 (DNS rebinding) would even read the answers, and call the server with the token of the
user. Such requests name the site in their Host header, and are refused.

A page of another site, or of another port of this machine, can also send requests to the right address, with
the right Host header. Browsers do not protect websockets against that, and NiceGUI answers every origin. Such
requests name their page in their Origin header, or say in their Sec-Fetch-Site header that it is another one,
and are refused. A link from elsewhere to a page of the playground works.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The browser itself refuses to load anything from elsewhere. NiceGUI's pages have inline styles and scripts,
# and compile their templates and their CSS in the browser.
POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]+)?")
_REFUSAL: Final = (
    b"expected a Host header with an IP address, localhost or the name of this machine, found another name: "
    b"open the playground at the address that the command printed\n"
)
_OTHER_PAGE: Final = (
    b"expected a request of the playground's own page, found one of another page: open the playground at the "
    b"address that the command printed; a proxy in front of it has to pass on the Host header\n"
)


def is_loopback(host: str) -> bool:
    """Return whether a host to listen on is reachable from this machine alone."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def is_allowed(header: str, host: str) -> bool:
    """Return whether a Host header names the playground itself.

    Args:
        header: The header's value, with or without a port.
        host: Host that the playground listens on.
    """
    found = _HOST.fullmatch(header.lower())
    if found is None:
        return False
    name = found["v6"] or found["name"]
    own = {"localhost", host.lower()} | (set() if is_loopback(host) else {socket.gethostname().lower()})
    return name in own or _address(name) is not None


def is_own(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request comes from the playground's own page, a link, or no browser at all.

    Args:
        headers: The request's headers, with names in lower case.
    """
    origin = headers.get(b"origin")
    if origin is not None and _place(origin) != headers.get(b"host", b"").lower():
        return False
    is_foreign = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
    return not is_foreign or headers.get(b"sec-fetch-mode") == b"navigate"


def _place(origin: bytes) -> bytes | None:
    """Return host and port of an origin in lower case, or None where it names none."""
    try:
        return urlsplit(origin.lower()).netloc or None
    except ValueError:  # no URL
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:  # a name
        return None


class Guard:
    """ASGI middleware that refuses requests for other hosts and of other pages.

    It adds the security headers to every answer.

    Args:
        app: The application.
        host: Host that the playground listens on.
    """

    def __init__(self, app: App, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with status 400."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not is_allowed(headers.get(b"host", b"").decode("latin-1"), self._host):
            await _refuse(scope, send, _REFUSAL)
        elif not is_own(headers):
            await _refuse(scope, send, _OTHER_PAGE)
        else:
            await self._app(scope, receive, _with_headers(send))


async def _refuse(scope: Scope, send: Send, why: bytes) -> None:
    """Answer a request with status 400 and a sentence, or close a websocket before it is open."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": why})


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return sending
