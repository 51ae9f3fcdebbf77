"""Writes the chunk cell of an LSTM with int8 weights as matrix products of integers.

So a row's answer does not depend on the rows beside it.

A hidden state of an LSTM is a sigmoid times a tanh, so it lies in -1..1 and is rounded to 8 bits by a scale
that is known beforehand; onnxruntime's DynamicQuantizeLSTM takes its scale from all rows and time steps of a
run. Sums of products of integers are exact, and everything else is computed row by row.

What enters the first layer: tokens of a small vocabulary look their products with the weights up in a table,
features are multiplied with float32 weights, and the embeddings of a large vocabulary are rounded, by a scale
that is known, too. Gates, cell states and head stay float32.

A chunk of one time step runs it directly; one of several runs a Scan over it. Each has weights of its own:
onnxruntime arranges weights for its kernels at load only where they belong to the node's own graph or to the
one right around it. Those of the outermost graph would be arranged anew in each turn of the Scan, which took
0.14 to 0.2 ms for 2 layers of 512.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.contract import spec
from training.export.graph import arrays, edges, head
from training.export.graph_builder import GraphBuilder, onnx_gates
from training.export.volatility_graph import SCALED, add_volatility
from training.networks.network import NetworkConfig, RecurrentNetwork

# CPUs without VNNI add pairs of products in 16 bits. With weights of 7 bits 2 * 255 * 64 always fits; with 8
# they saturate, and answers differ from CPU to CPU.
LARGEST_WEIGHT = 64
# A state of 0 becomes this unsigned integer, and one of 1 this plus LARGEST_STATE.
ZERO_POINT, LARGEST_STATE = 128, 127
MICROSOFT = "com.microsoft"
Weights = dict[str, NDArray[np.float32]]
GATES = ("i", "o", "f", "g")  # in the order of ONNX; g is the candidate for the cell state


class _Step(NamedTuple):
    """Names of what a time step takes or gives.

    Attributes:
        states: (B, H), in the order of `config.recurrent_state_names`.
        entered: of a step's input, int64 (B,) or float32 (B, F).
    """

    states: list[str]
    entered: str


def write_cell(network: RecurrentNetwork) -> bytes:
    """Return the chunk cell of a network with int8 weights; the same network gives the same bytes.

    Args:
        network: of LSTM cells, in any mode; dropout is left out.
    Returns:
        The serialized graph, with the inputs and outputs of `training.export.graph.build_graph`.
    """
    config = network.config
    builder, weights = GraphBuilder([MICROSOFT]), arrays(network)
    add_volatility(builder, config)
    time = builder.node("Shape", [spec.INPUT], ["time"], start=1, end=2)  # (1,)
    one = builder.constant("time.one", np.array([1], np.int64))
    builder.node(
        "If",
        [builder.node("Equal", [time, one], ["time.is_one"])],
        ["hidden.flat", *(name + spec.NEXT_SUFFIX for name in config.recurrent_state_names)],
        then_branch=_one_step(config, weights),
        else_branch=_many_steps(config, weights),
    )
    head(builder, network, weights, "hidden.flat")
    return builder.model("chunk_cell", *edges(network)).SerializeToString()


def _constants(builder: GraphBuilder, config: NetworkConfig, weights: Weights, prefix: str) -> None:
    """Add the constants of a time step, under names that begin with the prefix."""
    builder.constant(f"{prefix}.scale", np.array(1 / LARGEST_STATE, np.float32))
    builder.constant(f"{prefix}.zero_point", np.array(ZERO_POINT, np.uint8))
    for layer in range(config.layers):
        below, own, bias = (
            onnx_gates("lstm", one).astype(np.float64)
            for one in (
                weights[f"recurrent.weight_ih_l{layer}"],
                weights[f"recurrent.weight_hh_l{layer}"],
                weights[f"recurrent.bias_ih_l{layer}"] + weights[f"recurrent.bias_hh_l{layer}"],
            )
        )  # (4H, E or H), (4H, H), (4H,)
        if not layer:
            below, bias = _enter(builder, config, weights, prefix, below, bias)
        matrix = np.concatenate([below, own], axis=1)
        for gate, rows, part in zip(GATES, np.split(matrix, 4), np.split(bias, 4), strict=True):
            name = f"{prefix}.layer{layer}.{gate}"
            scale = np.abs(rows).max(axis=1) / LARGEST_WEIGHT
            scale[scale == 0] = 1.0
            rounded = np.rint(rows / scale[:, None]).astype(np.int8)
            builder.constant(f"{name}.weight", rounded.T)  # (K, H)
            builder.constant(f"{name}.scale", scale.astype(np.float32))
            if layer or not _is_exact(config):
                builder.constant(f"{name}.bias", part.astype(np.float32))


def _enter(
    builder: GraphBuilder,
    config: NetworkConfig,
    weights: Weights,
    prefix: str,
    below: NDArray[np.float64],
    bias: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Add the constants by which a network's input enters its first layer.

    Args:
        builder: gets them.
        config: of the network.
        weights: its weights, by PyTorch's names.
        prefix: of the constants' names.
        below: the first layer's input weights, (4H, E).
        bias: its bias, (4H,).
    Returns:
        The part of `below` that is left to integers, scaled like hidden states, (4H, E or 0); and the bias
        that is left.
    """
    if config.vocabulary:
        embedding = weights["input_layer.weight"].astype(np.float64)  # (V, E)
        if not _is_exact(config):
            largest = np.abs(embedding).max() or 1.0
            rounded = np.rint(embedding / largest * LARGEST_STATE) + ZERO_POINT
            builder.constant(f"{prefix}.embedding", rounded.astype(np.uint8))
            return below * largest, bias
        products = {"table": embedding @ below.T + bias}  # (V, 4H)
    elif config.embedding:
        linear = weights["input_layer.weight"].astype(np.float64)  # (E, F)
        offset = below @ weights["input_layer.bias"].astype(np.float64)
        products = {"weight": (below @ linear).T, "bias": bias + offset}  # (F, 4H), (4H,)
    else:
        products = {"weight": below.T, "bias": bias}
    for name, values in products.items():
        for gate, part in zip(GATES, np.split(values, 4, axis=-1), strict=True):
            builder.constant(f"{prefix}.input.{gate}.{name}", part.astype(np.float32))
    return below[:, :0], bias


def _is_exact(config: NetworkConfig) -> bool:
    """Return whether the input's products with the weights stay float32.

    Those of features do; those of tokens do if their table has at most as many numbers as the recurrent
    weights.
    """
    return config.vocabulary <= config.hidden


def _entering(config: NetworkConfig) -> str:
    """Return the name of what enters the network: its input, or features that volatility has divided."""
    return SCALED if config.volatility else spec.INPUT


def _one_step(config: NetworkConfig, weights: Weights) -> onnx.GraphProto:
    """Return the branch that runs one time step: hidden states (B, H) of the last layer, next states."""
    builder = GraphBuilder()
    _constants(builder, config, weights, "step")
    axis = builder.constant("step.axis", np.array([1], np.int64))
    entered = builder.node("Squeeze", [_entering(config), axis], ["step.input"])  # (B,) or (B, F)
    after = _time_step(builder, config, "step", _Step(list(config.recurrent_state_names), entered))
    flat = builder.node("Identity", [after[-2]], ["step.hidden.flat"])
    return builder.graph("one_step", [], [_value(name) for name in (flat, *after)])


def _many_steps(config: NetworkConfig, weights: Weights) -> onnx.GraphProto:
    """Return the branch that runs any number of time steps: hidden states (B*T, H), next states."""
    builder = GraphBuilder()
    order = [1, 0] if config.vocabulary else [1, 0, 2]
    entered = builder.node(
        "Transpose", [_entering(config)], ["steps.input"], perm=order
    )  # (T, B) or (T, B, F)
    bounds = [
        builder.constant("steps.first", np.array(0, np.int64)),
        builder.node("Squeeze", ["time"], ["steps.end"]),
        builder.constant("steps.by", np.array(1, np.int64)),
    ]
    numbers = builder.node("Range", bounds, ["steps.numbers"])  # (T,)
    axis = builder.constant("steps.axis", np.array([1], np.int64))
    long = builder.node("Cast", [spec.LENGTHS], ["steps.lengths"], to=TensorProto.INT64)
    builder.node("Unsqueeze", [long, axis], ["steps.ends"])  # (B, 1)
    after = [f"steps.{name}" for name in config.recurrent_state_names]
    builder.node(
        "Scan",
        [*config.recurrent_state_names, entered, numbers],
        [*after, "steps.hidden"],
        body=_scan_body(config, weights),
        num_scan_inputs=2,
    )
    batch_first = builder.node("Transpose", ["steps.hidden"], ["steps.batch_first"], perm=[1, 0, 2])
    shape = builder.constant("steps.shape", np.array([-1, config.hidden], np.int64))
    flat = builder.node("Reshape", [batch_first, shape], ["steps.hidden.flat"])  # (B*T, H)
    return builder.graph("many_steps", [], [_value(name) for name in (flat, *after)])


def _scan_body(config: NetworkConfig, weights: Weights) -> onnx.GraphProto:
    """Return one turn of the Scan: a time step, in which rows that have ended keep their states."""
    builder = GraphBuilder()
    _constants(builder, config, weights, "turn")
    before = [f"turn.{name}.before" for name in config.recurrent_state_names]
    found = _time_step(builder, config, "turn", _Step(before, "turn.input"))
    runs = builder.node("Less", ["turn.number", "steps.ends"], ["turn.runs"])  # (B, 1)
    after = [
        builder.node("Where", [runs, new, old], [f"turn.{name}.after"])
        for name, new, old in zip(config.recurrent_state_names, found, before, strict=True)
    ]
    hidden = builder.node("Identity", [found[-2]], ["turn.hidden"])
    kind = TensorProto.INT64 if config.vocabulary else TensorProto.FLOAT
    entering = [_value("turn.input", kind), _value("turn.number", TensorProto.INT64)]
    return builder.graph(
        "turn", [*map(_value, before), *entering], [_value(name) for name in (*after, hidden)]
    )


def _time_step(builder: GraphBuilder, config: NetworkConfig, prefix: str, step: _Step) -> list[str]:
    """Add the nodes of one time step of all layers; return the names of the next states, in order."""
    after: list[str] = []
    below: str | None = None
    if not _is_exact(config):
        below = builder.node(
            "Gather", [f"{prefix}.embedding", step.entered], [f"{prefix}.input.rounded"], axis=0
        )  # (B, E)
    for layer in range(config.layers):
        named = f"{prefix}.layer{layer}"
        hidden, cell = step.states[2 * layer : 2 * layer + 2]
        own = _rounded(builder, prefix, hidden, f"{named}.h.rounded")
        rows = own if below is None else builder.node("Concat", [below, own], [f"{named}.rounded"], axis=1)
        gates = [_gate(builder, config, prefix, layer, gate, rows, step.entered) for gate in GATES]
        after += _cell(builder, named, gates, cell)
        if layer + 1 < config.layers:
            below = _rounded(builder, prefix, after[-2], f"{named}.h.next.rounded")
    return after


def _rounded(builder: GraphBuilder, prefix: str, state: str, name: str) -> str:
    """Add the node that rounds hidden states to 8 bits; return the name of the uint8 (B, H)."""
    return builder.node("QuantizeLinear", [state, f"{prefix}.scale", f"{prefix}.zero_point"], [name])


def _gate(
    builder: GraphBuilder, config: NetworkConfig, prefix: str, layer: int, gate: str, rows: str, entered: str
) -> str:
    """Add the nodes of one gate before its activation; return the name of the float32 (B, H)."""
    name = f"{prefix}.layer{layer}.{gate}"
    enters = not layer and _is_exact(config)
    inputs = [rows, f"{name}.weight", f"{prefix}.scale", f"{name}.scale", f"{prefix}.zero_point", ""]
    product = builder.node(
        "MatMulIntegerToFloat",
        inputs if enters else [*inputs, f"{name}.bias"],
        [f"{name}.product"],
    )
    builder.nodes[-1].domain = MICROSOFT
    if not enters:
        return product
    if config.vocabulary:
        other = builder.node("Gather", [f"{prefix}.input.{gate}.table", entered], [f"{name}.input"], axis=0)
    else:
        other = builder.node(
            "Gemm",
            [entered, f"{prefix}.input.{gate}.weight", f"{prefix}.input.{gate}.bias"],
            [f"{name}.input"],
        )
    return builder.node("Add", [product, other], [f"{name}.sum"])


def _cell(builder: GraphBuilder, prefix: str, gates: Sequence[str], cell: str) -> list[str]:
    """Add the elementwise part of an LSTM; return the names of the next hidden state and cell state."""
    i, o, f = (
        builder.node("Sigmoid", [gate], [f"{prefix}.{name}.opened"])
        for name, gate in zip(GATES, gates[:3], strict=False)
    )
    candidate = builder.node("Tanh", [gates[3]], [f"{prefix}.candidate"])
    taken = builder.node("Mul", [i, candidate], [f"{prefix}.taken"])
    kept = builder.node("Mul", [f, cell], [f"{prefix}.kept"])
    after = builder.node("Add", [taken, kept], [f"{prefix}.c.next"])
    shown = builder.node("Tanh", [after], [f"{prefix}.shown"])
    return [builder.node("Mul", [o, shown], [f"{prefix}.h.next"]), after]


def _value(name: str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return a tensor at a subgraph's edge, of a shape that its surroundings give."""
    return helper.make_tensor_value_info(name, kind, None)
