"""Parsing of requests, where malformed bytes, and those of too many fields, become InvalidArgument."""

from collections.abc import Callable, Collection
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
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
        max_fields: fields that a message may have, repeated ones and the entries of maps each. The parser of
            protobuf makes an object of each, and a message of 4 MiB may have two million: nearly a second for
            everybody.
    """
    # FromString is a bound method of the message's class.
    message = getattr(parse, "__self__", None)
    name = message.DESCRIPTOR.full_name if message is not None else "protobuf"
    nested = fields_with_maps(message.DESCRIPTOR) if message is not None else frozenset()

    def parsed(data: bytes) -> Any:
        if len(data) > _MIN_COUNTED_BYTES and has_more_fields(data, max_fields, nested):
            raise InvalidArgument("request", f"expected a {name} message of at most {max_fields} fields")
        try:
            return parse(data)
        except DecodeError:
            found = f"{len(data)} bytes {_NONE}"
        # Raised outside of the handler: the error of protobuf would be its context.
        raise InvalidArgument("request", f"expected a {name} message, found {found}")

    return parsed


def has_more_fields(data: bytes, max_count: int, nested: Collection[int] = ()) -> bool:
    """Return whether a message has more than so many fields; bytes that are no message may give either.

    Takes time in the number of fields that are counted. (Protocol Buffers, Encoding.)

    Args:
        data: bytes of the message.
        max_count: the number.
        nested: numbers of the fields whose own fields count as well.
    """
    return _count(data, max_count, nested) > max_count


def _count(data: bytes, max_count: int, nested: Collection[int]) -> int:
    """Return the number of fields, or any number above the maximum where there are more."""
    position, end, count = 0, len(data), 0
    while position < end and count <= max_count:
        count += 1
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _DELIMITED:
            length, position = _varint(data, position)
            if tag >> 3 in nested:
                count += _count(data[position : position + length], max_count - count, ())
            position += length
        elif kind == _VARINT:
            position = _after(data, position)
        else:  # the two ends of a group are tags alone, and what is between them is counted, too
            position += _WIDTHS.get(kind, 0)
    return count


def fields_with_maps(message: Descriptor) -> frozenset[int]:
    """Return the numbers of a message's fields that are messages with maps.

    The parser makes an object of each entry of a map, as it does of each field.
    """
    return frozenset(
        field.number
        for field in message.fields
        if field.message_type is not None and any(map(_is_map, field.message_type.fields))
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


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
