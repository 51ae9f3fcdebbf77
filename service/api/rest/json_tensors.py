"""Elements of tensors in JSON, from and to raw contents."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from service.api.open_inference.tensors import DTYPES, to_raw
from service.api.rest.json_values import kind_of
from service.errors import InvalidArgument
from service.tasks.pacing import Pace

# Types of JSON that the elements of a datatype may have.
_TYPES: Final[Mapping[str, set[type]]] = {
    "BYTES": {str},
    "FP32": {int, float},
    "INT32": {int},
    "INT64": {int},
}
# Elements that are written at once: some tenths of a millisecond.
_SLICE: Final = 1_000
_LENGTH_BYTES: Final = 4


def raw_of(name: str, datatype: str, shape: Sequence[int], data: Any) -> bytes:
    """Return the raw contents of a tensor whose elements are flat, or nested as its shape says.

    Args:
        name: name of the tensor.
        datatype: datatype of its elements.
        shape: shape of the tensor.
        data: elements, as the JSON has them.

    Returns:
        The raw contents; none where the datatype or the shape is one that no tensor of a model has, for which
        the request is refused by name.

    Raises:
        InvalidArgument: the elements are others than datatype and shape say.
    """
    if datatype not in _TYPES or min(shape, default=0) < 1:
        return b""
    elements = _flat(name, shape, data)
    if len(elements) != math.prod(shape):
        raise InvalidArgument(
            name, f"expected {math.prod(shape)} elements, as its shape says, found {len(elements)}"
        )
    if (others := set(map(type, elements)) - _TYPES[datatype]) != set():
        kinds = "text" if datatype == "BYTES" else "numbers" if datatype == "FP32" else "whole numbers"
        found = next(one for one in elements if type(one) in others)
        raise InvalidArgument(
            name, f"expected {kinds} for {datatype}, found {_described(found)} among the elements"
        )
    if datatype == "BYTES":
        return to_raw("BYTES", [element.encode() for element in elements])
    return _array(name, datatype, elements).tobytes()


def _described(found: object) -> str:
    return f"{found}" if isinstance(found, float) else kind_of(found)


def _flat(name: str, shape: Sequence[int], data: Any) -> list[Any]:
    """Return the elements in row-major order."""
    if not isinstance(data, list):
        raise InvalidArgument(f"{name}.data", f"expected a list of elements, found {kind_of(data)}")
    elements: list[Any] = data
    if not any(isinstance(first, list) for first in elements[:1]):
        return elements
    level = [elements]
    for depth, size in enumerate(shape):
        if not all(_is_row(row, size) for row in level):
            raise InvalidArgument(
                f"{name}.data",
                f"expected one flat list, or lists nested as the shape {list(shape)} says, "
                f"found others at depth {depth + 1}",
            )
        level = list(chain.from_iterable(level))
    return level


def _is_row(found: object, size: int) -> bool:
    return isinstance(found, list) and len(found) == size


def _array(name: str, datatype: Any, elements: list[Any]) -> NDArray[Any]:
    refusal = InvalidArgument(name, f"expected numbers that {datatype} holds, found a larger one")
    try:
        with np.errstate(over="ignore"):
            array: NDArray[Any] = np.array(elements, DTYPES[datatype])
    except OverflowError:
        raise refusal from None
    if not np.isfinite(array).all():
        raise refusal
    return array


async def elements_of(datatype: Any, raw: bytes) -> AsyncIterator[bytes]:
    """Yield raw contents as elements of JSON, separated by commas; a number that is not finite is null."""
    pace = Pace()
    if datatype == "BYTES":
        parts = _texts(raw)
    else:
        array = np.frombuffer(raw, DTYPES[datatype])
        parts = (array[start : start + _SLICE].tolist() for start in range(0, len(array), _SLICE))
    separator = b""
    for part in parts:
        yield separator + to_json(part, inf_nan_mode="null")[1:-1]
        separator = b","
        await pace.rest()


def _texts(raw: bytes) -> Any:
    """Yield lists of the texts of raw contents, each of at most about 64 KiB."""
    position, texts, size = 0, [], 0
    while position < len(raw):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "little")
        texts.append(raw[start:position].decode())
        size += position - start
        if len(texts) >= _SLICE or size > 1 << 16:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts
