"""Networks of contract 2 for tests, as ONNX graphs that are written node by node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

GATES = {"rnn": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Layer:
    """One recurrent layer: its kind, its width, and the values at which its states start."""

    kind: str
    width: int
    starts: tuple[float | list[float], ...] = (0.0, 0.0)

    @property
    def num_states(self) -> int:
        return 2 if self.kind == "lstm" else 1


@dataclass(frozen=True, eq=False)
class Net:
    """A network and what model.json says about it.

    Attributes:
        name: of the model.
        layers: recurrent layers, first one first.
        size: number of tokens, or of features.
        outputs: width of the head.
        section: model.json's section `sequences`.
        takes_tokens: whether the input is token ids.
        state_names: what a state is called at the graph's edge.
        window: model.json's window; None: any length.
        init: inputs of the init graph with their sizes; it computes the first state. None: no init graph.
        whole: "" for a chunk cell; of a bidirectional network "pooled" or "every".
        padding: of a whole network.
        files: further files by name.
        seed: of the weights.
        task: of the model; `section` is then the one of that task.
    """

    name: str
    layers: tuple[Layer, ...]
    size: int
    outputs: int
    section: Mapping[str, Any]
    takes_tokens: bool = False
    state_names: str = "layer{layer}.{kind}"
    window: Mapping[str, Any] | None = None
    init: Mapping[str, int] | None = None
    whole: str = ""
    padding: str = "lengths"
    files: Mapping[str, bytes] = field(default_factory=dict)
    seed: int = 0
    task: str = "sequences"

    @cached_property
    def states(self) -> list[dict[str, Any]]:
        """The entries of model.json's state."""
        if self.whole:
            return []
        found = []
        for number, layer in enumerate(self.layers):
            for kind, start in zip(("h", "c")[: layer.num_states], layer.starts, strict=False):
                name = self.state_names.format(layer=number, kind=kind)
                found.append({"input": name, "output": f"{name}.next", "size": layer.width, "start": start})
        return found


class _Builder:
    """Collects the nodes and weights of a graph."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def random(self, name: str, *shape: int) -> str:
        values = self._random.normal(0, 1.5 / np.sqrt(shape[-1]), shape)
        return self.constant(name, values.astype(np.float32))

    def node(self, operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(operator, inputs, outputs, name=f"{outputs[0]}/node", **attributes)
        )
        return outputs[0]

    def model(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "graph", inputs, outputs, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(made, full_check=True)
        return made


def _float(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _entry(net: Net) -> list[onnx.ValueInfoProto]:
    """Inputs of the network itself."""
    tokens = helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "time"])
    entry = tokens if net.takes_tokens else _float("input", "batch", "time", net.size)
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"])
    return [entry] if net.whole and net.padding == "none" else [entry, lengths]


def _time_first(builder: _Builder, net: Net) -> tuple[str, int]:
    """Return the name of the first layer's input, (T, B, E), and E."""
    if not net.takes_tokens:
        return builder.node("Transpose", ["input"], "input.time_first", perm=[1, 0, 2]), net.size
    table = builder.random("embedding", net.size, 6)
    turned = builder.node("Transpose", ["input"], "input.time_first", perm=[1, 0])
    return builder.node("Gather", [table, turned], "input.embedded", axis=0), 6


def _recurrent(builder: _Builder, layer: Layer, where: str, inputs: Sequence[str], width: int) -> list[str]:
    """Add a recurrent node; inputs are its sequence, lengths and first states. Return its outputs."""
    directions = 2 if "both" in where else 1
    rows = GATES[layer.kind] * layer.width
    weights = [
        builder.random(f"{where}.W", directions, rows, width),
        builder.random(f"{where}.R", directions, rows, layer.width),
        builder.random(f"{where}.B", directions, 2 * rows),
    ]
    outputs = [f"{where}.Y", f"{where}.Y_h", f"{where}.Y_c"][: 1 + layer.num_states]
    more: dict[str, Any] = {"linear_before_reset": 1} if layer.kind == "gru" else {}
    if directions == 2:
        more["direction"] = "bidirectional"
    sequence, *others = inputs
    builder.node(layer.kind.upper(), [sequence, *weights, *others], *outputs, hidden_size=layer.width, **more)
    return outputs


def chunk_graph(net: Net) -> onnx.ModelProto:
    """The graph of a chunk cell."""
    builder = _Builder(net.seed)
    zeroth, first = (builder.constant(f"axis.{one}", np.array([one], np.int64)) for one in (0, 1))
    sequence, width = _time_first(builder, net)
    names = iter(net.states)
    for number, layer in enumerate(net.layers):
        where, own = f"node{number}", [next(names) for _ in range(layer.num_states)]
        before = [
            builder.node("Unsqueeze", [one["input"], zeroth], f"{where}.before{place}")
            for place, one in enumerate(own)
        ]
        every, *after = _recurrent(builder, layer, where, [sequence, "lengths", *before], width)
        for one, name in zip(own, after, strict=True):
            builder.node("Squeeze", [name, zeroth], one["output"])
        sequence, width = builder.node("Squeeze", [every, first], f"{where}.hidden"), layer.width
    batch_first = builder.node("Transpose", [sequence], "hidden.batch_first", perm=[1, 0, 2])
    shape = builder.constant("shape.flat", np.array([-1, width], np.int64))
    flat = builder.node("Reshape", [batch_first, shape], "hidden.flat")
    rows = builder.node("Gather", [flat, "wanted"], "hidden.wanted", axis=0)
    weights = [builder.random("head.weight", net.outputs, width), builder.random("head.bias", net.outputs)]
    builder.node("Gemm", [rows, *weights], "output", transB=1)
    states = [_float(one["input"], "batch", one["size"]) for one in net.states]
    wanted = helper.make_tensor_value_info("wanted", TensorProto.INT64, ["wanted"])
    nexts = [_float(one["output"], "batch", one["size"]) for one in net.states]
    return builder.model([*_entry(net), *states, wanted], [_float("output", "wanted", net.outputs), *nexts])


def whole_graph(net: Net) -> onnx.ModelProto:
    """The graph of a bidirectional network of one layer, pooled by its final states or with every step."""
    builder = _Builder(net.seed)
    [layer] = net.layers
    sequence, width = _time_first(builder, net)
    lengths = ["lengths"] if net.padding == "lengths" else []
    every, final, *_ = _recurrent(builder, layer, "both", [sequence, *lengths], width)
    # (2, B, H) to (B, 2, H), or (T, 2, B, H) to (B, T, 2, H).
    is_pooled = net.whole == "pooled"
    perm, source = ([1, 0, 2], final) if is_pooled else ([2, 0, 1, 3], every)
    turned = builder.node("Transpose", [source], "hidden.batch_first", perm=perm)
    flat = np.array([0, 2 * layer.width] if is_pooled else [0, 0, 2 * layer.width], np.int64)
    joined = builder.node("Reshape", [turned, builder.constant("shape.joined", flat)], "hidden.joined")
    weight = builder.random("head.weight", 2 * layer.width, net.outputs)
    product = builder.node("MatMul", [joined, weight], "head.product")
    builder.node("Add", [product, builder.random("head.bias", net.outputs)], "output")
    time = () if is_pooled else ("time",)
    return builder.model(_entry(net), [_float("output", "batch", *time, net.outputs)])


def init_graph(net: Net) -> onnx.ModelProto:
    """The graph that computes the first state from the sum of what the inputs are projected to."""
    assert net.init is not None
    builder = _Builder(net.seed + 1)
    name, width = net.states[0]["input"], net.states[0]["size"]
    total = builder.random("bias", width)
    for one, size in net.init.items():
        product = builder.node(
            "MatMul", [one, builder.random(f"{one}.weight", size, width)], f"{one}.product"
        )
        total = builder.node("Add", [total, product], f"{one}.total")
    builder.node("Tanh", [total], name)
    return builder.model(
        [_float(one, "batch", size) for one, size in net.init.items()], [_float(name, "batch", width)]
    )
