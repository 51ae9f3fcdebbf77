"""Calls whose messages are announced and never sent to their end, made of HTTP/2 frames."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

_READ_BYTES = 1 << 16


class HalfSent:
    """A connection on which calls send a part of their message and go silent.

    Attributes:
        codes: gRPC codes of the calls that have ended, by stream.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        self._changed = asyncio.Event()
        self.codes: dict[int, int] = {}
        self.reading = asyncio.create_task(self._read())

    def begin(self, path: str, message_bytes: int, metadata: tuple[tuple[str, str], ...] = ()) -> int:
        """Begin a call that announces a message; return its stream."""
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(stream, [*_headers(path), *metadata])
        self._http.send_data(stream, b"\0" + message_bytes.to_bytes(4, "big"))
        self._flush()
        return stream

    async def send(self, stream: int, data: bytes) -> None:
        """Send a part of the stream's message as far as the server lets it, until the call has ended."""
        while data and stream not in self.codes:
            self._changed.clear()
            window = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
            if not window:
                await self._changed.wait()
                continue
            self._http.send_data(stream, data[:window])
            data = data[window:]
            self._flush()
            await self._writer.drain()

    async def ended(self, count: int) -> list[int]:
        """Wait until so many calls have ended; return their codes."""
        while len(self.codes) < count:
            self._changed.clear()
            await self._changed.wait()
        return list(self.codes.values())

    def _flush(self) -> None:
        self._writer.write(self._http.data_to_send())

    async def _read(self) -> None:
        while data := await self._reader.read(_READ_BYTES):
            for event in self._http.receive_data(data):
                if isinstance(event, events.TrailersReceived | events.ResponseReceived):
                    self._take(event.stream_id, dict(event.headers))
            self._flush()
            self._changed.set()

    def _take(self, stream: int | None, headers: dict[object, object]) -> None:
        if stream is not None and "grpc-status" in headers:
            self.codes[stream] = int(str(headers["grpc-status"]))


def _headers(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]


@asynccontextmanager
async def half_sent(port: int) -> AsyncIterator[HalfSent]:
    """Connect to a port of this machine; the connection is broken off at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = HalfSent(reader, writer)
    try:
        yield connection
    finally:
        connection.reading.cancel()
        writer.transport.abort()
