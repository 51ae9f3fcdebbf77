"""Bytes that are no message: the caller's mistake, told as one."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from service.errors import InvalidArgument


class Malformed:
    """Stands in for a request that did not parse, until the handler's task can refuse it: grpc answers
    INTERNAL to whatever a deserializer raises.

    Args:
        name: the message that was expected.
        size: bytes that came.
    """

    __slots__ = ("_name", "_size")

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size

    def error(self) -> InvalidArgument:
        """What the caller is told."""
        none = "that are none (lone surrogates and other invalid UTF-8 in text included)"
        return InvalidArgument("request", f"expected a {self._name} message, found {self._size} bytes {none}")


def parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A message's FromString that gives Malformed instead of raising."""
    # FromString is bound to the message's class.
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.full_name if message is not None else "protobuf"

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return Malformed(name, len(data))

    return parsed


async def checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """A stream's requests, up to the first that is none.

    Raises:
        InvalidArgument: it came.
    """
    async for request in requests:
        if type(request) is Malformed:
            raise request.error()
        yield request
