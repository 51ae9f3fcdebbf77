"""service.api.rest.exchange and service.api.rest.streams: what is read of a body, and how it is refused."""

import zlib
from itertools import repeat
from typing import Any

import grpc
import pytest

from service.api.rest.exchange import Exchange
from service.api.rest.handed_call import Ending
from service.api.rest.streams import EventStream
from service.errors import BodyTooLarge

MAX_BYTES = 100


class Client:
    """The client's side of an exchange: the parts of its body, and what was sent to it."""

    def __init__(self, parts: Any, **headers: str) -> None:
        self._parts = iter(parts)
        self.sent: list[Any] = []
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope: Any = {"type": "http", "method": "POST", "headers": named, "client": None}
        self.exchange = Exchange(scope, self._receive, self._send, MAX_BYTES)

    async def _receive(self) -> Any:
        return {"type": "http.request", "body": next(self._parts), "more_body": True}

    async def _send(self, message: Any) -> None:
        self.sent.append(message)


async def test_compressed_body_is_bounded_where_it_expands_to_nothing() -> None:
    """A body in chunks without end was read for as long as a request may take."""
    compressor = zlib.compressobj()
    begun = compressor.compress(b"") + compressor.flush(zlib.Z_SYNC_FLUSH)
    empty = compressor.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff"
    client = Client(
        (part for parts in ([begun], repeat(empty, 1000)) for part in parts), content_encoding="gzip"
    )
    with pytest.raises(BodyTooLarge, match=f"at most {MAX_BYTES} bytes"):
        await client.exchange.body()


async def test_stream_that_was_refused_is_not_refused_again() -> None:
    client = Client([])
    events = EventStream(client.exchange)
    await events.end(Ending(grpc.StatusCode.NOT_FOUND, "none"))
    await events.end(Ending(grpc.StatusCode.UNAVAILABLE, "the server is stopping"))
    assert [one["status"] for one in client.sent if one["type"] == "http.response.start"] == [404]
