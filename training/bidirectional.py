"""Graphs of whole networks: stacked bidirectional LSTMs of random weights, written with onnx alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec

OPSET = 17


@dataclass(frozen=True, slots=True)
class Bidirectional:
    """Sizes of a network.

    Attributes:
        features: values a time step; of token ids, their number, each with an embedding of `hidden` values.
        hidden: width of a layer's state, of one direction.
        outputs: width of the head.
        layers: how many.
        takes_tokens: inputs are token ids.
        is_pooled: one output a sequence, from the last states of both directions; else one a time step.
        takes_lengths: sequences of different lengths can share a run.
    """

    features: int
    hidden: int
    outputs: int
    layers: int = 2
    takes_tokens: bool = False
    is_pooled: bool = True
    takes_lengths: bool = True

    def graph(self, seed: int = 0) -> bytes:
        """Return the graph, with weights drawn from a seed."""
        return _Writer(self, np.random.default_rng(seed)).graph()


class _Writer:
    """Collects nodes and weights. Between layers, arrays are float32 (T, B, width), time first."""

    def __init__(self, sizes: Bidirectional, random: np.random.Generator) -> None:
        self._sizes = sizes
        self._random = random
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def graph(self) -> bytes:
        sizes = self._sizes
        flowing, width = self._first(), sizes.hidden if sizes.takes_tokens else sizes.features
        for number in range(sizes.layers):
            flowing, last = self._layer(number, flowing, width)
            width = 2 * sizes.hidden
        head = self._weight("head", (width, sizes.outputs), width)
        # Batch first again: (B, width), or (B, T, width).
        rows = self._node("Squeeze", [last, self._axes("only", [0])]) if sizes.is_pooled else flowing
        rows = rows if sizes.is_pooled else self._node("Transpose", [rows], perm=[1, 0, 2])
        self._nodes.append(helper.make_node("MatMul", [rows, head], [spec.OUTPUT]))
        return self._model().SerializeToString()

    def _first(self) -> str:
        """Return the first layer's input, (T, B, width)."""
        sizes = self._sizes
        if not sizes.takes_tokens:
            return self._node("Transpose", [spec.INPUT], perm=[1, 0, 2])
        table = self._weight("embedding", (sizes.features, sizes.hidden), 1)
        ids = self._node("Transpose", [spec.INPUT], perm=[1, 0])
        return self._node("Gather", [table, ids])

    def _layer(self, number: int, flowing: str, width: int) -> tuple[str, str]:
        """Add a layer; return its outputs (T, B, 2 hidden) and its last states (1, B, 2 hidden)."""
        hidden = self._sizes.hidden
        weights = [
            self._weight(f"layer{number}.w", (2, 4 * hidden, width), hidden),
            self._weight(f"layer{number}.r", (2, 4 * hidden, hidden), hidden),
            self._weight(f"layer{number}.b", (2, 8 * hidden), hidden),
        ]
        lengths = spec.LENGTHS if self._sizes.takes_lengths else ""
        every, last = f"layer{number}.every", f"layer{number}.last"
        self._nodes.append(
            helper.make_node(
                "LSTM",
                [flowing, *weights, lengths],
                [every, last],
                hidden_size=hidden,
                direction="bidirectional",
            )
        )
        shape = self._axes(f"layer{number}.shape", [0, -1, 2 * hidden])
        one = self._axes(f"layer{number}.one", [1, -1, 2 * hidden])
        joined = self._node("Transpose", [every], perm=[0, 2, 1, 3])  # (T, B, 2, hidden)
        ends = self._node("Transpose", [last], perm=[1, 0, 2])  # (B, 2, hidden)
        return self._node("Reshape", [joined, shape]), self._node("Reshape", [ends, one])

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def _weight(self, name: str, shape: tuple[int, ...], fan_in: int) -> str:
        values = self._random.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(fan_in))
        return self._constant(name, values)

    def _axes(self, name: str, values: list[int]) -> str:
        return self._constant(name, np.array(values, np.int64))

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _model(self) -> onnx.ModelProto:
        sizes = self._sizes
        kind, width = (TensorProto.INT64, []) if sizes.takes_tokens else (TensorProto.FLOAT, [sizes.features])
        inputs = [helper.make_tensor_value_info(spec.INPUT, kind, ["batch", "time", *width])]
        if sizes.takes_lengths:
            inputs.append(helper.make_tensor_value_info(spec.LENGTHS, TensorProto.INT32, ["batch"]))
        steps = [] if sizes.is_pooled else ["time"]
        output = helper.make_tensor_value_info(
            spec.OUTPUT, TensorProto.FLOAT, ["batch", *steps, sizes.outputs]
        )
        graph = helper.make_graph(self._nodes, "bidirectional", inputs, [output], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        onnx.checker.check_model(model)
        return model
