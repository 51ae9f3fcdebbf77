"""A call whose path is any bytes, sent by frames that no gRPC library would send."""

import asyncio
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived
from h2.exceptions import ProtocolError

# What grpc.aio's accept loop ends of: its first byte begins nothing in UTF-8, so that decoding it fails.
NOT_UTF8 = b"/\xff"


async def status_of(host: str, port: int, path: bytes, times: int = 1) -> list[bytes]:
    """Call a path several times on one connection; the statuses, fewer where the server closed it."""
    sends_all = H2Configuration(client_side=True, header_encoding=None, validate_outbound_headers=False)
    connection = H2Connection(sends_all)
    connection.initiate_connection()
    for _ in range(times):
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, _headers(path), end_stream=True)
    reader, writer = await asyncio.open_connection(host, port)
    statuses: list[bytes] = []
    with suppress(ConnectionError, ProtocolError):  # h2 takes a PING after a GOAWAY for an error
        writer.write(connection.data_to_send())
        while len(statuses) < times and (data := await reader.read(1 << 16)):
            for event in connection.receive_data(data):
                if isinstance(event, ResponseReceived | TrailersReceived):
                    statuses += [value for name, value in event.headers if name == b"grpc-status"]
            writer.write(connection.data_to_send())
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return statuses


def _headers(path: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]
