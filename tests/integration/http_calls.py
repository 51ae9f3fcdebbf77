"""Requests over HTTP to the real server, each on a connection of its own unless it is given one."""

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.integration.process import ServerProcess

TIMEOUT_S = 20
Headers = Mapping[str, str]


class Answer(NamedTuple):
    """Answer of the server.

    Attributes:
        status: HTTP status.
        headers: headers, whose names are read in any case.
        body: the whole body.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Body as JSON."""
        return json.loads(self.body)


def connection(server: ServerProcess, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """Return a connection, which opens with its first request."""
    if tls is not None:
        return http.client.HTTPSConnection("localhost", server.http_port, timeout=TIMEOUT_S, context=tls)
    return http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_S)


async def ask(
    on: http.client.HTTPConnection,
    method: str,
    path: str,
    content: Any = None,
    headers: Headers | None = None,
) -> Answer:
    """Send one request, whose content is bytes or becomes JSON, and read the answer."""
    body = content if isinstance(content, bytes | None) else json.dumps(content).encode()

    def fetch() -> Answer:
        on.request(method, path, body, headers=dict(headers or {}))
        response = on.getresponse()
        return Answer(response.status, response.headers, response.read())

    return await asyncio.to_thread(fetch)


async def call(
    server: ServerProcess, path: str, content: Any = None, headers: Headers | None = None, method: str = ""
) -> Answer:
    """Send one request on a connection of its own: a POST where it has content."""
    on = connection(server)
    try:
        return await ask(on, method or ("GET" if content is None else "POST"), path, content, headers)
    finally:
        on.close()


@asynccontextmanager
async def event_stream(
    server: ServerProcess, path: str, content: Any, headers: Headers | None = None
) -> AsyncIterator[AsyncIterator[Any]]:
    """Open a stream of server-sent events, and yield an iterator of their JSON.

    The connection breaks where the context ends before the stream. What is not read waits in the server.
    """
    body = json.dumps(content).encode()
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.setblocking(False)
    await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", server.http_port))
    reader, writer = await asyncio.open_connection(sock=opened, limit=4096)
    try:
        lines = [f"POST {path} HTTP/1.0", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        assert b"content-type: text/event-stream" in head
        yield _events(reader)
    finally:
        writer.transport.abort()


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    """Yield the events until the server closes the connection, which ends an answer of HTTP/1.0."""
    while line := await reader.readline():
        assert line.startswith(b"data: "), line
        assert await reader.readline() == b"\n"
        yield json.loads(line.removeprefix(b"data: "))
