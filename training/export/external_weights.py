"""Describes tensors as external data inside the file of another graph, which stores them once."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto

# Smaller tensors are copied: a reference takes a third of it.
_MIN_BYTES = 1024


class ExternalWeights:
    """The tensors of a serialized graph, to be referred to from other graphs.

    Args:
        graph: the serialized graph.
        file: name of the file that will hold it.
    """

    def __init__(self, graph: bytes, file: str) -> None:
        self._graph = graph
        self._file = file

    def tensor(self, given: TensorProto, name: str, shape: Sequence[int]) -> TensorProto:
        """Return a tensor with the values of another one of the graph.

        Args:
            given: its values; copied where they are few or not stored as raw bytes.
            name: of the new tensor.
            shape: of the new tensor, with as many values.
        """
        made = TensorProto(name=name, data_type=given.data_type, dims=shape)
        raw = given.raw_data
        # The same bytes mean the same values, wherever in the file they are found.
        offset = self._graph.find(raw) if len(raw) >= _MIN_BYTES else -1
        if offset < 0:
            made.CopyFrom(given)
            made.name = name
            made.dims[:] = shape
            return made
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._file), ("offset", offset), ("length", len(raw))):
            made.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
        return made
