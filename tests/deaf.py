"""Callers who never read what the server sends, made of HTTP/2 frames."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from grpc_health.v1 import health_pb2
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from service.api.health import WATCH_METHOD

_HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Deaf:
    """A connection on which the server may send no data: its window for every stream is 0.

    Attributes:
        begun: streams on which headers have come from the server.
        codes: the gRPC codes of those that have ended, by stream.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        no_window = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
        self._http.local_settings = Settings(client=True, initial_values=no_window)
        self._http.initiate_connection()
        self.begun: set[int] = set()
        self.codes: dict[int, int] = {}

    async def watch(self, names: Iterable[str]) -> None:
        """Open a Watch of each name, and wait until the server has sent headers for each."""
        requests = [health_pb2.HealthCheckRequest(service=name).SerializeToString() for name in names]
        await self.call(WATCH_METHOD, requests)

    async def call(self, path: str, requests: Iterable[bytes]) -> None:
        """Call a method once for each request, and wait until the server has sent headers for each call."""
        opened = set()
        for request in requests:
            opened.add(stream := self._http.get_next_available_stream_id())
            self._http.send_headers(stream, [(":path", path), *_HEADERS])
            self._http.send_data(stream, b"\0" + len(request).to_bytes(4, "big") + request, end_stream=True)
        while not opened <= self.begun:
            self._writer.write(self._http.data_to_send())
            await self._writer.drain()
            data = await self._reader.read(1 << 16)
            assert data, "the server has closed the connection"
            for event in self._http.receive_data(data):
                self._take(event)

    def _take(self, event: events.Event) -> None:
        assert not isinstance(event, events.DataReceived), "the window is 0"
        if isinstance(event, events.ResponseReceived | events.TrailersReceived):
            self.begun.add(event.stream_id)
            for name, value in event.headers:
                if name in (b"grpc-status", "grpc-status"):
                    self.codes[event.stream_id] = int(value)


@asynccontextmanager
async def deaf(target: int | str) -> AsyncIterator[Deaf]:
    """A connection to a port of this machine, or to a unix socket; broken off at the end."""
    if isinstance(target, int):
        reader, writer = await asyncio.open_connection("127.0.0.1", target)
    else:
        reader, writer = await asyncio.open_unix_connection(target)
    try:
        yield Deaf(reader, writer)
    finally:
        writer.transport.abort()
