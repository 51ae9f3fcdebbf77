"""Streams of server-sent events: one JSON a message of a ModelStreamInfer, errors as events."""

import grpc
from pydantic_core import to_json

from seqserve.inference import grpc_service_pb2 as pb
from service.api.rest import generate_messages
from service.api.rest.exchange import Exchange
from service.api.rest.handed_call import Ending

# Proxies must pass the events on as they come.
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class EventStream:
    """Events of one request.

    An error before the first text is the status of the answer; a later one is an event.

    Args:
        exchange: the request and its answer.

    Attributes:
        key: key of the text in an event.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.key = ""
        self._exchange = exchange

    async def write(self, data: bytes) -> None:
        """Send the event of one message."""
        message = pb.ModelStreamInferResponse.FromString(data)
        if message.error_message:
            await self._refuse(_ending_of(message.error_message))
            return
        if not self._exchange.has_begun:
            await self._exchange.begin(_HEADERS)
        content = generate_messages.json_of(message.infer_response, self.key)
        await self._exchange.send_part(_event(content))

    async def end(self, ending: Ending) -> None:
        """End the stream with the status of its call."""
        if ending.code is not grpc.StatusCode.OK:
            await self._refuse(ending)
        if self._exchange.is_open:
            await self._exchange.end()

    async def _refuse(self, ending: Ending) -> None:
        if self._exchange.is_open:
            await self._exchange.send_part(_event(to_json({"error": ending.details})))
        elif not self._exchange.has_begun:
            await self._exchange.refuse(ending)


def _event(content: bytes) -> bytes:
    return b"data: " + content + b"\n\n"


def _ending_of(error: str) -> Ending:
    """Return the status that the text of a refused request begins with."""
    name, _, details = error.partition(": ")
    return Ending(grpc.StatusCode[name], details)
