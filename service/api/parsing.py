"""Parsing of requests, where malformed bytes, and those of too many fields, become InvalidArgument."""

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import DecodeError

from service.errors import InvalidArgument

_NONE: Final = "that are none (lone surrogates and other invalid UTF-8 in text included)"
# Messages of fewer bytes are parsed uncounted: their parts are few.
_MIN_COUNTED_BYTES: Final = 1 << 15
# Bytes of a value by wire type; the length of a length-delimited value stands before it.
_VARINT, _DELIMITED, _WIDTHS = 0, 2, {1: 8, 5: 4}


def parser(parse: Callable[[bytes], Any], max_fields: int) -> Callable[[bytes], Any]:
    """Wrap a message's FromString to raise InvalidArgument for bytes that do not parse.

    Args:
        parse: makes a message of its bytes.
        max_fields: fields that a message may have, repeated ones each. The parser of protobuf makes an object
            of each, and a message of 4 MiB may have two million: nearly a second for everybody.
    """
    # FromString is a bound method of the message's class.
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.full_name if message is not None else "protobuf"

    def parsed(data: bytes) -> Any:
        if len(data) > _MIN_COUNTED_BYTES and has_more_fields(data, max_fields):
            raise InvalidArgument("request", f"expected a {name} message of at most {max_fields} fields")
        try:
            return parse(data)
        except DecodeError:
            found = f"{len(data)} bytes {_NONE}"
        # Raised outside of the handler: the error of protobuf would be its context.
        raise InvalidArgument("request", f"expected a {name} message, found {found}")

    return parsed


def has_more_fields(data: bytes, max_count: int) -> bool:
    """Return whether a message has more than so many fields; bytes that are no message may give either.

    Takes time in the number of fields that are counted. (Protocol Buffers, Encoding.)
    """
    position, end = 0, len(data)
    for _ in range(max_count + 1):
        if position >= end:
            return False
        kind = data[position] & 7
        position = _after(data, position)
        if kind == _DELIMITED:
            length, position = _varint(data, position)
            position += length
        elif kind == _VARINT:
            position = _after(data, position)
        else:  # the two ends of a group are tags alone, and what is between them is counted, too
            position += _WIDTHS.get(kind, 0)
    return True


def _after(data: bytes, position: int) -> int:
    """Return the position after a number that stands at a position; behind the end there are none."""
    end = len(data)
    while position < end and data[position] > 127:
        position += 1
    return position + 1


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position and the position after it; bytes behind the end count as zero."""
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    return value, max(position, len(data))
