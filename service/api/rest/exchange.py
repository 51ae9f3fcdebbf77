"""One HTTP request, and the call that answers it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from service.api.connections import peer_of
from service.api.request_id import KEY, request_id_of
from service.api.rest.decompression import CODINGS, decompressed
from service.api.rest.errors import headers_of, http_status_of
from service.api.rest.handed_call import CallLoop, Ending, HttpClient, Read, Write
from service.errors import BodyTooLarge, HttpBusy, InvalidArgument, shown
from service.transport.call import CallBroken

# Headers that are metadata of a call.
_METADATA: Final = ("authorization", KEY, "traceparent", "tracestate")
# Bytes that are sent at once.
_SLICE_BYTES: Final = 1 << 16
_RETRY_AFTER_S: Final = 1.0


class Exchange:
    """A request and its answer, in the event loop of the HTTP port.

    Args:
        scope: scope of the request.
        receive: returns the request's messages.
        send: sends messages of the answer.
        max_body_bytes: maximum size of a body, as it was sent and decompressed.

    Attributes:
        headers: headers of the request.
        has_begun: whether the head of the answer was sent.
        is_open: whether parts of the answer may follow.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._gone: asyncio.Task[None] | None = None
        self._call: asyncio.Future[Ending] | None = None
        self.headers = Headers(scope=scope)
        self.has_begun = self.is_open = False
        given = [(name, value) for name in _METADATA for value in self.headers.getlist(name)]
        self._request_id = request_id_of(given)
        self._metadata = [*((name, value) for name, value in given if name != KEY), (KEY, self._request_id)]

    def part(self, name: str) -> str:
        """Return a part of the path by its name; "" where the path has none."""
        found: str = self._scope["path_params"].get(name, "")
        return found

    async def call(self, calls: CallLoop, method: str, read: Read, write: Write) -> Ending | None:
        """Run a call, which is cancelled when the client goes; return its status, None for a client gone.

        Args:
            calls: runs it.
            method: full name, as /package.Service/Method.
            read: returns the message; `body` has the request's.
            write: sends an answer.
        """
        address = self._scope["client"]
        peer = peer_of(address)[1] if address else ""
        client = HttpClient(peer, self._metadata, read, write)
        self._call = asyncio.ensure_future(calls.call(method, client))
        try:
            return await self._call
        except asyncio.CancelledError:
            if self._gone is not None and self._gone.done():
                return None
            raise
        finally:
            if self._gone is not None:
                self._gone.cancel()

    async def body(self) -> bytes:
        """Return the body, decompressed; from then on the call is cancelled when the client goes.

        Raises:
            BodyTooLarge: it has more bytes than it may.
            InvalidArgument: it is compressed in another way, or wrongly.
            HttpBusy: as many requests as may be are being answered.
            CallBroken: the client has gone.
        """
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity" and coding not in CODINGS:
            raise InvalidArgument(
                "Content-Encoding", f"expected {', '.join(CODINGS)} or identity, found {shown(coding)}"
            )
        parts = self._parts() if coding == "identity" else decompressed(self._parts())
        body = bytearray()
        async for part in parts:
            body += part
            if len(body) > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
        self._begin()
        return bytes(body)

    async def _parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body as they come, and no more than it may have, whatever they expand to."""
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallBroken
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise BodyTooLarge(self._max_body_bytes)
            yield part
            if not message.get("more_body", False):
                return

    def _begin(self) -> None:
        """Keep the connection while it is answered, and watch whether the client goes."""
        connection = self._scope["state"]["connection"]
        if not connection.hold():
            raise HttpBusy(
                f"expected at most {connection.max_held} requests over HTTP at a time "
                "(SEQSERVE_HTTP_MAX_CONNECTIONS), found one more",
                _RETRY_AFTER_S,
            )
        self._gone = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._call is not None:
            self._call.cancel()

    async def send_json(self, content: Any, status: int = 200) -> None:
        """Send a short answer in JSON."""
        await self.send_all(JSONResponse(content, status, {KEY: self._request_id}))

    async def send_all(self, response: Response) -> None:
        """Send a whole answer."""
        self.has_begun = True
        await response(self._scope, self._receive, self._send)

    async def send_parts(self, parts: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
        """Send an answer part by part, each once the connection takes it.

        An answer that is short has its length; other ones are sent in chunks.
        """
        whole = bytearray()
        async for part in parts:
            whole += part
            if len(whole) > _SLICE_BYTES:
                break
        else:
            await self.send_all(Response(bytes(whole), 200, {**headers, KEY: self._request_id}))
            return
        await self.begin(headers)
        await self.send_part(bytes(whole))
        async for part in parts:
            await self.send_part(part)
        await self.end()

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head of an answer that is sent in parts."""
        self.has_begun = self.is_open = True
        listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        listed.append((KEY.encode(), self._request_id.encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": listed})

    async def send_part(self, data: bytes) -> None:
        """Send a part of an answer that has begun, slice by slice."""
        for start in range(0, len(data), _SLICE_BYTES):
            part = data[start : start + _SLICE_BYTES]
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self) -> None:
        """End an answer that has begun, once."""
        self.is_open = False
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse_method(self, methods: Sequence[str]) -> None:
        """Refuse a request whose method is none of those that the path takes."""
        allowed = ", ".join(methods)
        headers = {KEY: self._request_id, "Allow": allowed}
        await self.send_all(JSONResponse({"error": f"expected the method {allowed}"}, 405, headers))

    async def refuse(self, ending: Ending) -> None:
        """Send the status of a call that was refused."""
        headers = {KEY: self._request_id, **headers_of(ending)}
        await self.send_all(JSONResponse({"error": ending.details}, http_status_of(ending), headers))
