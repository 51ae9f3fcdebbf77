"""Collects the nodes and weights of an ONNX graph, and makes a checked model of them.

Inside the graphs written here arrays are time first, as ONNX's recurrent operators want them.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.networks.network import Cell

# CUDA kernels of the recurrent operators stop at 21; the weights need nothing newer than 17.
OPSET = 17
IR_VERSION = 8

OPERATORS: dict[Cell, str] = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
# PyTorch stacks gates as (i, f, g, o) and (r, z, n), ONNX as (i, o, f, c) and (z, r, h): the order to take
# PyTorch's in.
GATES: dict[Cell, tuple[int, ...]] = {"rnn": (0,), "lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


# A value of a node's attribute.
Attribute = int | float | str | Sequence[float] | Sequence[str] | onnx.GraphProto


class GraphBuilder:
    """Collects nodes and initialisers under unique names.

    Args:
        domains: of operators beyond ONNX's own.
    """

    def __init__(self, domains: Sequence[str] = ()) -> None:
        self.domains = domains
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add an initialiser, and return its name."""
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def axis(self, axis: int) -> str:
        """Return the axis as an input of Squeeze and Unsqueeze, shared by all of them."""
        name = f"axis.{axis}"
        return (
            name
            if any(known.name == name for known in self.initializers)
            else self.constant(name, np.array([axis], np.int64))
        )

    def node(
        self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Attribute
    ) -> str:
        """Add a node, and return the name of its first output."""
        made = helper.make_node(operator, list(inputs), list(outputs), name=f"{operator}/{outputs[0]}")
        made.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(made)
        return outputs[0]

    def graph(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        """Return the graph of all nodes, such as a node's subgraph, which may use the names around it."""
        return helper.make_graph(self.nodes, name, inputs, outputs, self.initializers)

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """Return the checked model of all nodes, with the inputs and outputs of its edge."""
        made = helper.make_model(
            self.graph(name, inputs, outputs),
            opset_imports=[
                helper.make_opsetid("", OPSET),
                *(helper.make_opsetid(domain, 1) for domain in self.domains),
            ],
            producer_name="seqserve",
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(made, full_check=True)
        return made


def onnx_gates(cell: Cell, stacked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows that PyTorch stacks gate by gate, (G*H, ...), in the order of ONNX."""
    blocks = np.split(stacked, len(GATES[cell]))
    return np.concatenate([blocks[index] for index in GATES[cell]])


def float_tensor(name: str, *axes: str | int) -> onnx.ValueInfoProto:
    """Return a float32 tensor at the graph's edge; axes of a name are symbolic."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))
