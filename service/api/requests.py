"""Messages of one call, from the bytes that arrive to parsed requests, and the bytes that they hold."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from service.api.held_bytes import MESSAGE_FACTOR, Holding
from service.api.large_messages import MIN_LARGE_BYTES
from service.api.receiving import Receiving
from service.errors import InvalidArgument

Parse = Callable[[bytes], Any]


class Requests:
    """Requests of one call.

    As an async iterator it yields each request, and gives its bytes back when the next one is asked for.

    Args:
        context: context of the call.
        parse: makes a request of its bytes.
        holding: bytes of the call.
        receiving: waits for messages.

    Attributes:
        holding: bytes of the call.
    """

    __slots__ = ("_context", "_data", "_parse", "_receiving", "holding")

    def __init__(self, context: Any, parse: Parse, holding: Holding, receiving: Receiving) -> None:
        self.holding = holding
        self._context = context
        self._parse = parse
        self._receiving = receiving
        self._data = b""

    async def only(self) -> Any:
        """Return the request of a call that has one; its bytes are held until the call ends.

        Raises:
            BytesExhausted: there is no room for it.
            InvalidArgument: there is none, or it did not parse.
        """
        if await self._receive(is_only=True):
            return await self.take()
        raise InvalidArgument("request", "expected one message, found none")

    async def read(self) -> int | None:
        """Wait for a stream's next message; return its size in bytes, None at the stream's end.

        Before `take` it is charged as it came, for it may wait.

        Raises:
            BytesExhausted: there is no room for it.
        """
        return len(self._data) if await self._receive(self._context.has_one_message) else None

    async def _receive(self, is_only: bool) -> bool:
        data = await self._receiving.read(self._context, self.holding, is_only)
        if data is None:
            return False
        self.holding.take(len(data))
        self._data = data
        return True

    def has_room(self) -> bool:
        """Return whether what is made of the message that was read can be held now."""
        return self.holding.has_room_for((MESSAGE_FACTOR - 1) * len(self._data))

    async def take(self) -> Any:
        """Return the request of the message that was read; its bytes are held until `give_back`.

        Raises:
            BytesExhausted: there is no room for it.
            InvalidArgument: it did not parse.
        """
        data, self._data = self._data, b""
        self.holding.take((MESSAGE_FACTOR - 1) * len(data))
        if len(data) < MIN_LARGE_BYTES:
            return self._parse(data)
        return await self._receiving.large.parse(self.holding.caller, self._parse, data)

    def give_back(self, size: int) -> None:
        """Hold a message of a stream no longer, of so many bytes."""
        self.holding.give_back(MESSAGE_FACTOR * size)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the requests of a stream one by one."""
        while (size := await self.read()) is not None:
            yield await self.take()
            self.give_back(size)
