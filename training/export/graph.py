"""Writes a trained network as a chunk cell in ONNX (the contract is in service/contract/spec.py).

The graph is written node by node from the weights instead of traced: the tracing exporters bake in output
dimensions (onnxruntime then warns at run time), do not wire `sequence_lens`, and one of them wrote GRU nodes
with linear_before_reset=0, which is silently not PyTorch's GRU. Inside the graph arrays are time first, as
ONNX's recurrent operators want them.
"""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from service.contract import spec
from training.export.graph_builder import OPERATORS, GraphBuilder, float_tensor, onnx_gates
from training.export.ngram import add_chunk_contexts, add_mixture, add_tables
from training.export.volatility_graph import DEVIATION, SCALED, add_volatility
from training.networks.mixture import MixedNetwork
from training.networks.network import LAGS, RecurrentNetwork


def build_graph(network: RecurrentNetwork) -> onnx.ModelProto:
    """Return the chunk cell of a network, weights included.

    Args:
        network: in any mode; dropout is left out.
    Returns:
        A checked model with `batch`, `time` and `wanted` symbolic wherever they occur.
    """
    builder = GraphBuilder()
    weights = arrays(network)
    add_volatility(builder, network.config)
    sequence = _input_layer(builder, network, weights)  # (T, B, E)
    for layer in range(network.config.layers):
        sequence = _recurrent_layer(builder, network, weights, layer, sequence)  # (T, B, H)
    batch_first = builder.node("Transpose", [sequence], ["hidden.batch_first"], perm=[1, 0, 2])  # (B, T, H)
    if network.config.lags:
        batch_first = _with_lags(builder, network, batch_first)  # (B, T, H + lags)
    flat_shape = builder.constant("shape.flat", np.array([-1, network.config.seen], np.int64))
    head(builder, network, weights, builder.node("Reshape", [batch_first, flat_shape], ["hidden.flat"]))
    return builder.model("chunk_cell", *edges(network))


def arrays(network: RecurrentNetwork) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a network by PyTorch's names."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}


def edges(network: RecurrentNetwork) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Return the inputs and the outputs of a network's chunk cell."""
    config = network.config
    entered = (
        helper.make_tensor_value_info(spec.INPUT, TensorProto.INT64, ["batch", "time"])
        if config.vocabulary
        else float_tensor(spec.INPUT, "batch", "time", config.features)
    )
    inputs = [
        entered,
        helper.make_tensor_value_info(spec.LENGTHS, TensorProto.INT32, ["batch"]),
        *(float_tensor(name, "batch", size) for name, size in network.state_sizes),
        helper.make_tensor_value_info(spec.WANTED, TensorProto.INT64, ["wanted"]),
    ]
    outputs = [
        float_tensor(spec.OUTPUT, "wanted", config.output_size),
        *(float_tensor(name + spec.NEXT_SUFFIX, "batch", size) for name, size in network.state_sizes),
    ]
    return inputs, outputs


def _input_layer(
    builder: GraphBuilder, network: RecurrentNetwork, weights: dict[str, NDArray[np.float32]]
) -> str:
    config = network.config
    if config.vocabulary:
        tokens = builder.node("Transpose", [spec.INPUT], ["input.time_first"], perm=[1, 0])  # (T, B)
        table = builder.constant("embedding", weights["input_layer.weight"])
        return builder.node("Gather", [table, tokens], ["input.embedded"], axis=0)  # (T, B, E)
    entering = SCALED if config.volatility else spec.INPUT
    features = builder.node("Transpose", [entering], ["input.time_first"], perm=[1, 0, 2])  # (T, B, F)
    if not config.embedding:
        return features
    matrix = builder.constant("input.weight", weights["input_layer.weight"].T)
    product = builder.node("MatMul", [features, matrix], ["input.product"])
    return builder.node(
        "Add", [product, builder.constant("input.bias", weights["input_layer.bias"])], ["input.embedded"]
    )  # (T, B, E)


def _recurrent_layer(
    builder: GraphBuilder,
    network: RecurrentNetwork,
    weights: dict[str, NDArray[np.float32]],
    layer: int,
    sequence: str,
) -> str:
    config = network.config
    prefix = f"layer{layer}"
    kinds = ("h", "c") if config.cell == "lstm" else ("h",)

    def gates(name: str) -> NDArray[np.float32]:
        return onnx_gates(config.cell, weights[f"recurrent.{name}_l{layer}"])

    matrices = [
        builder.constant(f"{prefix}.W", gates("weight_ih")[None]),  # (1, G*H, E)
        builder.constant(f"{prefix}.R", gates("weight_hh")[None]),  # (1, G*H, H)
        builder.constant(
            f"{prefix}.B", np.concatenate([gates("bias_ih"), gates("bias_hh")])[None]
        ),  # (1, 2*G*H)
    ]
    initial = [
        builder.node("Unsqueeze", [f"{prefix}.{kind}", builder.axis(0)], [f"{prefix}.{kind}.initial"])
        for kind in kinds
    ]  # (1, B, H)
    final = [f"{prefix}.{kind}.final" for kind in kinds]  # (1, B, H)
    # PyTorch multiplies the reset gate after the recurrent matrix (linear_before_reset=1); ONNX's default is
    # before.
    extra: dict[str, int] = {"linear_before_reset": 1} if config.cell == "gru" else {}
    builder.node(
        OPERATORS[config.cell],
        [sequence, *matrices, spec.LENGTHS, *initial],
        [f"{prefix}.Y", *final],
        hidden_size=config.hidden,
        **extra,
    )
    for kind, name in zip(kinds, final, strict=True):
        builder.node("Squeeze", [name, builder.axis(0)], [f"{prefix}.{kind}{spec.NEXT_SUFFIX}"])  # (B, H)
    return builder.node(
        "Squeeze", [f"{prefix}.Y", builder.axis(1)], [f"{prefix}.hidden"]
    )  # (T, 1, B, H) -> (T, B, H)


def _with_lags(builder: GraphBuilder, network: RecurrentNetwork, hidden: str) -> str:
    """Add the last values of a feature to the hidden states: (B, T, H) to (B, T, H + lags).

    The state holds the values before the chunk. With them and the chunk's own in one row, the values of step
    t are those at [t + 1, t + 1 + lags), and the next state is what is at [length, length + lags).
    """
    config, one = network.config, builder.constant("lags.one", np.array(1, np.int64))
    feature = builder.constant("lags.feature", np.array(config.lag_feature, np.int64))
    values = builder.node("Gather", [spec.INPUT, feature], ["lags.input"], axis=2)  # (B, T)
    row = builder.node("Concat", [LAGS, values], ["lags.row"], axis=1)  # (B, lags + T)
    shape = builder.node("Shape", [values], ["lags.shape"], start=1)  # (1,)
    time = builder.node("Squeeze", [shape, builder.axis(0)], ["lags.time"])
    zero = builder.constant("lags.zero", np.array(0, np.int64))
    steps = builder.node("Range", [zero, time, one], ["lags.steps"])  # (T,)
    column = builder.node("Unsqueeze", [steps, builder.axis(1)], ["lags.column"])  # (T, 1)
    after = builder.constant("lags.after", np.arange(1, config.lags + 1))  # (lags,)
    places = builder.node("Add", [column, after], ["lags.places"])  # (T, lags)
    lags = builder.node("Gather", [row, places], ["lags.windows"], axis=1)  # (B, T, lags)
    scale = builder.constant("lags.scale", np.array(config.lag_scale, np.float32))
    scaled = builder.node("Mul", [lags, scale], ["lags.scaled"])
    lengths = builder.node("Cast", [spec.LENGTHS], ["lags.lengths"], to=TensorProto.INT64)
    ends = builder.node("Unsqueeze", [lengths, builder.axis(1)], ["lags.ends"])  # (B, 1)
    offsets = builder.constant("lags.offsets", np.arange(config.lags))
    kept = builder.node("Add", [ends, offsets], ["lags.kept"])  # (B, lags)
    builder.node("GatherElements", [row, kept], [LAGS + spec.NEXT_SUFFIX], axis=1)
    return builder.node("Concat", [hidden, scaled], ["hidden.with_lags"], axis=2)


def head(
    builder: GraphBuilder, network: RecurrentNetwork, weights: dict[str, NDArray[np.float32]], flat: str
) -> None:
    """Add the nodes that compute the output at the wanted positions.

    Args:
        builder: gets the nodes and their weights.
        network: whose head it is.
        weights: its weights, by PyTorch's names.
        flat: name of the last layer's hidden states, (B*T, H).
    """
    if not network.config.outputs:
        builder.node("Gather", [flat, spec.WANTED], [spec.OUTPUT], axis=0)
        return
    rows = builder.node("Gather", [flat, spec.WANTED], ["hidden.wanted"], axis=0)  # (wanted, H)
    matrix = builder.constant("head.weight", weights["head.weight"])
    bias = builder.constant("head.bias", weights["head.bias"])
    if network.config.volatility:
        _scaled_head(builder, rows, matrix, bias)
    elif isinstance(network, MixedNetwork):
        logits = builder.node("Gemm", [rows, matrix, bias], ["head.logits"], transB=1)
        add_tables(builder, network)
        contexts = builder.node(
            "Gather", [add_chunk_contexts(builder, network), spec.WANTED], ["contexts.wanted"], axis=0
        )
        add_mixture(builder, network, logits, contexts)
    else:
        builder.node("Gemm", [rows, matrix, bias], [spec.OUTPUT], transB=1)


def _scaled_head(builder: GraphBuilder, rows: str, matrix: str, bias: str) -> None:
    """Add the head of a network that is scaled by volatility: its output times the deviation of the step."""
    unscaled = builder.node("Gemm", [rows, matrix, bias], ["output.unscaled"], transB=1)  # (wanted, outputs)
    flat_shape = builder.constant("volatility.flat", np.array([-1, 1], np.int64))
    deviations = builder.node("Reshape", [DEVIATION, flat_shape], [f"{DEVIATION}.flat"])  # (B*T, 1)
    wanted = builder.node("Gather", [deviations, spec.WANTED], [f"{DEVIATION}.wanted"], axis=0)  # (wanted, 1)
    builder.node("Mul", [unscaled, wanted], [spec.OUTPUT])


def reference_outputs(network: RecurrentNetwork, inputs: torch.Tensor) -> NDArray[np.float32]:
    """Return what PyTorch computes for one whole sequence, at every step.

    Args:
        inputs: int64 (T,) or float32 (T, F).
    Returns:
        float32 (T, outputs).
    """
    network.eval()
    with torch.no_grad():
        device = next(network.parameters()).device
        hidden, _ = network(inputs[None].to(device))
        outputs: NDArray[np.float32] = network.outputs_of(hidden)[0].cpu().numpy()
    return outputs
