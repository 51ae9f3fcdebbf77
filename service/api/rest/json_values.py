"""Reading of JSON: bodies into objects, and values that must be of one type.

The parser holds the interpreter, so bodies are bounded in the number of their values, and large ones are
parsed one at a time with a pause after each.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import from_json

from service.errors import InvalidArgument, shown

# A body of so many values, and of so many lists, objects and texts among them, is parsed within 20 ms.
MAX_VALUES: Final = 500_000
MAX_PARTS: Final = 50_000
# A smaller body is parsed within a millisecond, whatever it holds.
_MIN_LARGE_BYTES: Final = 8 << 10
_BINARY: Final = "send the elements as binary tensor data instead (Inference-Header-Content-Length)"


class JsonBodies:
    """Parses bodies, large ones one at a time."""

    def __init__(self) -> None:
        self._turns = asyncio.Lock()

    async def parse(self, body: bytes) -> dict[str, Any]:
        """Return the object that a body holds.

        Raises:
            InvalidArgument: it holds no JSON object, or one of too many values.
        """
        if len(body) < _MIN_LARGE_BYTES:
            return _parsed(body)
        async with self._turns:
            started = time.perf_counter()
            try:
                return _parsed(body)
            finally:
                await asyncio.sleep(time.perf_counter() - started)


def _parsed(body: bytes) -> dict[str, Any]:
    if body.count(b",") > MAX_VALUES:
        raise InvalidArgument("body", f"expected JSON of at most {MAX_VALUES} values, found more; {_BINARY}")
    if body.count(b"[") + body.count(b"{") + body.count(b'"') // 2 > MAX_PARTS:
        raise InvalidArgument(
            "body", f"expected JSON of at most {MAX_PARTS} lists, objects and texts, found more; {_BINARY}"
        )
    try:
        found = from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        found, why = None, str(error)
    else:
        why = f"found {kind_of(found)}"
    if not isinstance(found, dict):
        raise InvalidArgument("body", f"expected a JSON object, {why}")
    return found


def kind_of(value: object) -> str:
    """Return what JSON calls a value."""
    if value is None:
        return "null"
    kinds = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")


def check_keys(place: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raise InvalidArgument for a key that is not known."""
    for key in found:
        if key not in known:
            raise InvalidArgument(place, f"expected keys among {', '.join(known)}, found {shown(key)}")


def text_in(place: str, found: Mapping[str, Any], key: str) -> str:
    """Return the text of a key, "" where it is absent or null."""
    value = found.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"{place}{key}", f"expected text, found {kind_of(value)}")
    return value or ""


def object_in(place: str, found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the object of a key, an empty one where it is absent or null."""
    value = found.get(key)
    if value is not None and not isinstance(value, dict):
        raise InvalidArgument(f"{place}{key}", f"expected an object, found {kind_of(value)}")
    return value or {}


def objects_in(place: str, found: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the list of objects of a key, an empty one where it is absent or null."""
    value = found.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgument(f"{place}{key}", f"expected a list of objects, found {kind_of(value)}")
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            raise InvalidArgument(f"{place}{key}[{index}]", f"expected an object, found {kind_of(one)}")
    return value
