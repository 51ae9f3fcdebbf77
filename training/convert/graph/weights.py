"""Keeps large weights in one file, so that graphs made from one original share them and stay small.

onnxruntime maps the file into memory; a graph of 500 MB is then held once, however many graphs use it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper

WEIGHTS_FILE = "weights.bin"
# Smaller tensors stay in the graph, where shapes are read and constants are folded.
_MIN_BYTES = 1 << 14
# onnxruntime wants mapped tensors at multiples of the size of a page.
_ALIGNMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class Weights:
    """The file of weights beside the graphs that name it.

    Attributes:
        folder: folder of the file, in which onnxruntime looks for it.
        total_bytes: size of the file.
    """

    folder: Path
    total_bytes: int

    def value(self, tensor: TensorProto) -> NDArray[np.generic]:
        """Return the values of a tensor of a graph."""
        return numpy_helper.to_array(tensor, str(self.folder))


def move_out(model: onnx.ModelProto, folder: Path) -> tuple[onnx.ModelProto, Weights]:
    """Move the large initializers of a model into the folder's file, behind those that are there.

    The model is changed. Protobuf keeps the memory of what a message once held, so that the small copy that
    is returned is to be used in its place.
    """
    with (folder / WEIGHTS_FILE).open("ab") as file:
        for tensor in model.graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL and _is_large(tensor):
                _append(tensor, _raw(tensor), file)
        size = file.tell()
    small = onnx.ModelProto()
    small.CopyFrom(model)
    return small, Weights(folder, size)


def put_outside(tensor: TensorProto, values: NDArray[np.generic], folder: Path) -> bool:
    """Write the values of a tensor that has none yet into the folder's file, if they are large.

    Args:
        tensor: its name, type and sizes are set.
        values: its values.
        folder: folder of the file.

    Returns:
        True if they were written, and the tensor names them there.
    """
    if not _is_large(tensor):
        return False
    with (folder / WEIGHTS_FILE).open("ab") as file:
        _append(tensor, np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, file)
    return True


def with_weights(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Return a copy of a model that holds its weights itself, as a version's file must."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    external_data_helper.load_external_data_for_model(whole, str(folder))
    return whole


def _is_large(tensor: TensorProto) -> bool:
    if tensor.data_type == TensorProto.STRING:
        return False
    numbers = int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1
    return numbers * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize >= _MIN_BYTES


def _raw(tensor: TensorProto) -> bytes:
    return tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.to_array(tensor).tobytes()


def _append(tensor: TensorProto, data: bytes | memoryview, file: IO[bytes]) -> None:
    """Write the values of a tensor to the end of the file, and have the tensor name them there."""
    file.write(bytes(-file.tell() % _ALIGNMENT))
    _refer(tensor, file.tell(), len(data))
    file.write(data)


def _refer(tensor: TensorProto, place: int, size: int) -> None:
    """Have a tensor name its values in the file instead of holding them."""
    name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", place), ("length", size)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
