"""Finds what the tensors of a foreign graph are made of: their nodes, and values that are constant."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from training.convert.foreign import Refused
from training.convert.graph.copying import attributes_of

# Shapes, axes, paddings and initial states are smaller; weights are not looked into.
_MAX_NUMBERS = 1 << 16


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors of a graph by name.

    Attributes:
        makers: the node that gives each tensor.
        constants: initializers and the tensors of Constant nodes.
    """

    makers: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, TensorProto]

    def maker(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that gives a tensor, if it is one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in operators else None

    def value(self, name: str) -> NDArray[np.generic] | None:
        """Return the values of a constant, or None if it is none, is large, or lies in a file.

        Raises:
            Refused: its values do not fit its shape.
        """
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        if np.prod(tensor.dims, dtype=np.int64) > _MAX_NUMBERS or tensor.data_type == TensorProto.STRING:
            return None
        try:
            return numpy_helper.to_array(tensor)
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"constant {name}: its values do not fit its shape {list(tensor.dims)}") from error

    def integers(self, name: str) -> list[int] | None:
        """Return a constant of integers as a flat list, or None if it is none."""
        value = self.value(name)
        if value is None or value.dtype.kind not in "iu":
            return None
        return [int(one) for one in value.ravel()]

    def dims(self, name: str) -> list[int] | None:
        """Return the sizes of a constant's axes, wherever its values are, or None if it is no constant."""
        tensor = self.constants.get(name)
        return None if tensor is None else list(tensor.dims)


def tensors_of(graph: onnx.GraphProto) -> Tensors:
    """Return the tensors of a graph, those of its bodies left out."""
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute:
            constants[node.output[0]] = _tensor_of(node)
    makers = {name: node for node in graph.node for name in node.output if name}
    return Tensors(makers, constants)


def _tensor_of(node: onnx.NodeProto) -> TensorProto:
    """Return the tensor of a Constant node, whichever attribute has it."""
    (found,) = attributes_of(node).values()
    if isinstance(found, TensorProto):
        return found
    if isinstance(found, onnx.SparseTensorProto):
        return TensorProto(data_type=TensorProto.STRING)
    kind = np.float32 if node.attribute[0].name in ("value_float", "value_floats") else np.int64
    if node.attribute[0].name in ("value_string", "value_strings"):
        return TensorProto(data_type=TensorProto.STRING)
    return numpy_helper.from_array(np.array(found, kind), node.output[0])


def optional_input(node: onnx.NodeProto, index: int) -> str:
    """Return the name of a node's input, empty where it is left out."""
    return node.input[index] if index < len(node.input) else ""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model is written in."""
    return next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 1)
