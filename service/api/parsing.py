"""Parsing of requests, where malformed bytes become InvalidArgument."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from service.errors import InvalidArgument


class Malformed:
    """Placeholder for a request that did not parse, which the handler refuses.

    A deserializer must not raise: grpc would answer INTERNAL.

    Args:
        name: full name of the expected message.
        size: number of bytes received.
    """

    __slots__ = ("_name", "_size")

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    def error(self) -> InvalidArgument:
        """Return the error for the client."""
        none = "that are none (lone surrogates and other invalid UTF-8 in text included)"
        return InvalidArgument("request", f"expected a {self._name} message, found {self._size} bytes {none}")


def parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Wrap a message's FromString to return Malformed instead of raising."""
    # FromString is a bound method of the message's class.
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.full_name if message is not None else "protobuf"

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Malformed(name, len(data))

    return parsed


async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield the requests of a stream.

    Raises:
        InvalidArgument: a request did not parse.
    """
    async for request in requests:
        if type(request) is Malformed:
            raise request.error()
        yield request
