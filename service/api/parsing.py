"""Parsing of requests, where malformed bytes become InvalidArgument."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError

from service.errors import InvalidArgument

_NONE = "that are none (lone surrogates and other invalid UTF-8 in text included)"


def parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Wrap a message's FromString to raise InvalidArgument for bytes that do not parse."""
    # FromString is a bound method of the message's class.
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.full_name if message is not None else "protobuf"

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            found = f"{len(data)} bytes {_NONE}"
        # Raised outside of the handler: the error of protobuf would be its context.
        raise InvalidArgument("request", f"expected a {name} message, found {found}")

    return parsed
