"""Writes a step of an LSTM that was trained here in fewer operations, with the same bits.

onnxruntime's LSTM node multiplies inputs and hidden state with their weights, adds the biases, and applies
the gates, in this order (uni_directional_lstm.cc). These nodes do the same in float32, so that a state has
the same bits whichever of them ran a step; `training.export.generation` compares them before the graph
counts.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from service.contract import spec
from service.contract.generation_graph import NAMES, PREFIX
from training.export.external_weights import ExternalWeights
from training.export.generation_graph import Body, StateTensor
from training.export.graph_builder import GraphBuilder
from training.networks.network import NetworkConfig

# The table of embeddings times input weights has a row of gates for each token. A larger one would fall out
# of the processor's cache.
_MAX_TABLE_BYTES = 4 << 20


def has_lstm_body(config: NetworkConfig) -> bool:
    """Return whether `lstm_body` knows such a network."""
    table = config.vocabulary * 4 * config.hidden * 4
    return config.cell == "lstm" and config.outputs > 0 and 0 < table <= _MAX_TABLE_BYTES


def lstm_body(config: NetworkConfig, graph: bytes, file: str) -> Body:
    """Return the body.

    Args:
        config: of a network for which `has_lstm_body` is true.
        graph: its chunk cell, from `training.export.graph.build_graph`, serialized.
        file: name of the file of that.
    """
    made = onnx.load_from_string(graph)
    return _Writer(config, {one.name: one for one in made.graph.initializer}, graph, file).body()


class _Writer:
    """Writes the nodes of a step; arrays are float32 (B, H) or (B, 4 H), gates in the order of ONNX."""

    def __init__(
        self, config: NetworkConfig, weights: dict[str, TensorProto], graph: bytes, file: str
    ) -> None:
        self._config, self._weights = config, weights
        self._external = ExternalWeights(graph, file)
        self._builder = GraphBuilder()
        self._kept: list[TensorProto] = []

    def body(self) -> Body:
        """Return the whole step."""
        builder, width = self._builder, self._config.hidden
        builder.constant(f"{PREFIX}split.gates", np.array([3 * width, width], np.int64))
        builder.constant(f"{PREFIX}split.sigmoids", np.array([width] * 3, np.int64))
        hidden, states = "", []
        for layer in range(self._config.layers):
            entered = self._entered(layer, hidden)
            hidden, cell = self._layer(layer, entered)
            for kind, after in (("h", hidden), ("c", cell)):
                states.append(StateTensor(f"layer{layer}.{kind}", after, width))
        matrix, bias = self._tensor("head.weight"), self._tensor("head.bias")
        logits = builder.node("Gemm", [hidden, matrix, bias], [spec.OUTPUT], transB=1)
        return Body(builder.nodes, logits, states, [*self._kept, *builder.initializers])

    def _entered(self, layer: int, below: str) -> str:
        """Return the inputs times the input weights; of the first layer, a row of a table that onnxruntime
        computes once.
        """
        builder, matrix = self._builder, self._matrix(f"layer{layer}.W")
        if layer:
            return builder.node("Gemm", [below, matrix], [f"layer{layer}.entered"], transB=1)
        table = builder.node("Gemm", [self._tensor("embedding"), matrix], ["entered.table"], transB=1)
        return builder.node("Gather", [table, NAMES.token], ["layer0.entered"], axis=0)

    def _layer(self, layer: int, entered: str) -> tuple[str, str]:
        """Add a layer; return its hidden state and its cell after the step."""
        builder, prefix = self._builder, f"layer{layer}"

        def node(operator: str, inputs: list[str], name: str) -> str:
            return builder.node(operator, inputs, [f"{prefix}.{name}"])

        matrix = self._matrix(f"{prefix}.R")
        sums = builder.node("Gemm", [f"{prefix}.h", matrix, entered], [f"{prefix}.sums"], transB=1)
        gates = node("Add", [sums, self._bias(layer)], "gates")
        three, candidate = f"{prefix}.three", f"{prefix}.candidate"
        builder.node("Split", [gates, f"{PREFIX}split.gates"], [three, candidate], axis=1)
        parts = [f"{prefix}.{name}" for name in ("enter", "leave", "forget")]  # ONNX's order: i, o, f
        opened = node("Sigmoid", [three], "opened")
        builder.node("Split", [opened, f"{PREFIX}split.sigmoids"], parts, axis=1)
        kept = node("Mul", [f"{prefix}.c", parts[2]], "kept")
        added = node("Mul", [parts[0], node("Tanh", [candidate], "proposed")], "added")
        cell = node("Add", [kept, added], "cell")
        return node("Mul", [node("Tanh", [cell], "shown"), parts[1]], "hidden"), cell

    def _bias(self, layer: int) -> str:
        """Return the sum of both biases, which onnxruntime's node makes, too."""
        both: NDArray[np.float32] = numpy_helper.to_array(self._weights[f"layer{layer}.B"])[0]
        first, second = np.split(both, 2)
        return self._builder.constant(f"layer{layer}.bias", first + second)

    def _matrix(self, name: str) -> str:
        """Return a matrix of a layer without the axis of directions."""
        self._kept.append(self._external.tensor(self._weights[name], name, self._weights[name].dims[1:]))
        return name

    def _tensor(self, name: str) -> str:
        self._kept.append(self._external.tensor(self._weights[name], name, self._weights[name].dims))
        return name
