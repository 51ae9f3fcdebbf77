"""Serializes a graph together with weights that lie in a file, without a second copy of them in memory.

Protobuf merges what is repeated of a message that is not, so that weights can follow the rest of a graph: a
model is written as the model without its large weights, and then, for each of these, a model whose graph
holds that initializer alone. Whoever parses the file sees one model.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

# Field numbers of onnx.proto, each with the wire type of a message or of bytes.
_GRAPH, _INITIALIZER, _RAW_DATA = (bytes([number << 3 | 2]) for number in (7, 5, 9))


def serialized(model: onnx.ModelProto, folder: Path) -> bytes:
    """Return a model as the bytes of a file that holds its weights itself.

    Args:
        model: the graph; it is unchanged.
        folder: folder of the file of weights that it names.
    """
    return b"".join(_pieces(model, folder))


def _pieces(model: onnx.ModelProto, folder: Path) -> Iterator[bytes | memoryview]:
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    outside = [one for one in model.graph.initializer if one.data_location == TensorProto.EXTERNAL]
    names = {one.name for one in outside}
    own = [one for one in model.graph.initializer if one.name not in names]
    del rest.graph.initializer[:]
    rest.graph.initializer.extend(own)
    yield rest.SerializeToString()
    for tensor in outside:
        yield from _initializer(tensor, folder)


def _length(number: int) -> bytes:
    """Return a number as protobuf has lengths: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _initializer(tensor: TensorProto, folder: Path) -> Iterator[bytes | memoryview]:
    """Yield a model whose graph holds one initializer."""
    entries = {one.key: one.value for one in tensor.external_data}
    size = int(entries["length"])
    head = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    head += _RAW_DATA + _length(size)
    inner = _INITIALIZER + _length(len(head) + size) + head
    yield _GRAPH + _length(len(inner) + size) + inner
    data = np.memmap(folder / entries["location"], np.uint8, "r", int(entries.get("offset", 0)), (size,))
    yield data.data
