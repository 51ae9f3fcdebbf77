"""Calls made of HTTP/2 frames: with any header fields and any message bytes, and what the server answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from seqserve.v1.text_classification_pb2 import ClassifyRequest

Fields = Sequence[tuple[bytes, bytes]]

CLASSIFY = b"/seqserve.v1.TextClassification/Classify"
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call got.

    Attributes:
        code: its gRPC status, None where the stream was reset or the connection closed.
        http_status: its HTTP status, None where there was none.
        is_reset: whether the stream was reset without a status.
        data: the bytes of its answer, each message behind its prefix of 5 bytes.
        text: the status's message, percent-encoded.
    """

    code: int | None
    http_status: int | None
    is_reset: bool
    data: bytes
    text: str = ""


def fields_of(path: bytes = CLASSIFY, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the header fields of a call, with further ones behind them."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


def framed(message: bytes, is_compressed: bool = False) -> bytes:
    """Return a message behind gRPC's prefix."""
    return bytes([is_compressed]) + len(message).to_bytes(4, "big") + message


def classify_message(*texts: str) -> bytes:
    """Return the bytes of a request of Classify for the tiny model."""
    return ClassifyRequest(model="moods", texts=texts or ("good",)).SerializeToString()


class Wire:
    """A connection that sends what it is told to, well formed or not.

    Attributes:
        is_closed: whether the server has closed it.
        goodbye: the code and the text of the server's GOAWAY, None before it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.http = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.http.initiate_connection()
        self._codes: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        self._http_status: dict[int, int] = {}
        self._data: dict[int, bytearray] = {}
        self._reset: set[int] = set()
        self._changed = asyncio.Event()
        self.is_closed = False
        self.goodbye: tuple[int, bytes] | None = None
        self.reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Connect to a port of this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def begin(self, fields: Fields, *, is_whole: bool = False) -> int:
        """Send the header fields of a call; return its stream."""
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, fields, end_stream=is_whole)
        self.flush()
        return stream

    async def send(self, stream: int, data: bytes, *, is_whole: bool = True, part: int = 1 << 14) -> None:
        """Send data in frames of at most `part` bytes, as far as the server lets it, until the call ends."""
        while data and not self._has_ended(stream):
            self._changed.clear()
            size = min(part, self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if not size:
                await self._changed.wait()
                continue
            self.http.send_data(stream, data[:size])
            data = data[size:]
            self.flush()
            await self.writer.drain()
        if is_whole and not self._has_ended(stream):
            with suppress(ProtocolError):  # the server has just reset it
                self.http.end_stream(stream)
            self.flush()

    async def answer(self, stream: int) -> Answer:
        """Wait until a call has ended; return what it got."""
        while not self._has_ended(stream):
            self._changed.clear()
            await self._changed.wait()
        return Answer(
            self._codes.get(stream),
            self._http_status.get(stream),
            stream in self._reset and stream not in self._codes,
            bytes(self._data.get(stream, b"")),
            self._texts.get(stream, ""),
        )

    async def call(self, fields: Fields, data: bytes, part: int = 1 << 14) -> Answer:
        """Make one call to its end."""
        with suppress(ConnectionError):
            stream = self.begin(fields)
            await self.send(stream, data, part=part)
        return await self.answer(stream)

    async def closed(self) -> None:
        """Wait until the server has closed the connection or said goodbye."""
        while not self.is_closed and self.goodbye is None:
            self._changed.clear()
            await self._changed.wait()

    def flush(self) -> None:
        """Write what is to be sent."""
        self.writer.write(self.http.data_to_send())

    def _has_ended(self, stream: int) -> bool:
        return self.is_closed or stream in self._codes or stream in self._reset

    async def _read(self) -> None:
        with suppress(ConnectionError, ProtocolError):  # h2 takes a frame after a GOAWAY for an error
            while data := await self._reader.read(_READ_BYTES):
                for event in self.http.receive_data(data):
                    self._take(event)
                self.flush()
                self._changed.set()
        self.is_closed = True
        self._changed.set()

    def _take(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived() | events.TrailersReceived():
                found = dict(event.headers)
                if b":status" in found:
                    self._http_status[event.stream_id] = int(found[b":status"])
                if b"grpc-status" in found:
                    self._codes[event.stream_id] = int(found[b"grpc-status"])
                    self._texts[event.stream_id] = found.get(b"grpc-message", b"").decode(errors="replace")
            case events.DataReceived():
                self._data.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamReset() | events.StreamEnded():
                self._reset.add(event.stream_id)
            case events.ConnectionTerminated():
                self.goodbye = (int(event.error_code or 0), event.additional_data or b"")


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    """Connect to a port of this machine; the connection is broken off at the end."""
    connection = await Wire.connect(port)
    try:
        yield connection
    finally:
        connection.reading.cancel()
        with suppress(asyncio.CancelledError):
            await connection.reading
        connection.writer.transport.abort()


async def call(port: int, fields: Fields, data: bytes, part: int = 1 << 14) -> Answer:
    """Make one call on a connection of its own."""
    async with wire(port) as connection:
        return await connection.call(fields, data, part)
