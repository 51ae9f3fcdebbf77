"""The nodes of single layers, shared by the graphs of chunk cells and of whole networks."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from service.contract import spec
from training.export.graph_builder import OPERATORS, Attribute, GraphBuilder, onnx_gates
from training.networks.sequences import LayerConfig, SequenceNetwork

_DIRECTIONS = {"forward": "forward", "backward": "reverse", "both": "bidirectional"}


def input_layer(builder: GraphBuilder, network: SequenceNetwork) -> str:
    """Add the embedding or the linear input layer; returns (T, B, E)."""
    layer = network.input_layer
    if isinstance(layer, nn.Embedding):
        tokens = builder.node("Transpose", [spec.INPUT], ["input.time_first"], perm=[1, 0])  # (T, B)
        table = builder.constant("embedding", array(layer.weight))
        return builder.node("Gather", [table, tokens], ["input.embedded"], axis=0)
    features = builder.node("Transpose", [spec.INPUT], ["input.time_first"], perm=[1, 0, 2])  # (T, B, F)
    return linear(builder, layer, features, "input.embedded")


def recurrent_layer(
    builder: GraphBuilder,
    network: SequenceNetwork,
    index: int,
    sequence: str,
    lengths: str,
    before: list[str] | None = None,
) -> tuple[str, list[str]]:
    """Add a recurrent layer.

    Args:
        builder: of the graph.
        network: whose weights are taken.
        index: which of its layers.
        sequence: float32 (T, B, E).
        lengths: int32 (B,), or "" where all rows are of one length.
        before: its states before, float32 (1, B, H) each; None: zeros.
    Returns:
        Hidden states (T, B, D*H), and the states after, (D, B, H) each, h before c.
    """
    layer, name = network.config.layers[index], f"layer{index}"
    matrices = [
        builder.constant(f"{name}.{part}", value)
        for part, value in zip("WRB", _matrices(layer, network.recurrent[index]), strict=True)
    ]
    after = [f"{name}.{part}.after" for part in (("h", "c") if layer.kind == "lstm" else ("h",))]
    attributes: dict[str, Attribute] = {
        "hidden_size": layer.width,
        "direction": _DIRECTIONS[layer.direction],
    }
    if layer.activations:
        attributes["activations"] = layer.activations
    if layer.kind == "gru":
        # PyTorch multiplies the reset gate after the recurrent matrix; ONNX's default is before.
        attributes["linear_before_reset"] = 1
    builder.node(
        OPERATORS[layer.kind],
        [sequence, *matrices, lengths, *(before or ())],
        [f"{name}.Y", *after],
        **attributes,
    )
    rows = builder.node("Transpose", [f"{name}.Y"], [f"{name}.rows"], perm=[0, 2, 1, 3])  # (T, B, D, H)
    shape = builder.constant(f"{name}.shape", np.array([0, 0, -1], np.int64))
    return builder.node("Reshape", [rows, shape], [f"{name}.hidden"]), after


def _matrices(layer: LayerConfig, module: nn.Module) -> list[NDArray[np.float32]]:
    """Return ONNX's W (D, G*H, E), R (D, G*H, H) and B (D, 2*G*H) of a layer."""

    def gates(name: str) -> NDArray[np.float32]:
        return onnx_gates(layer.kind, array(module.get_parameter(name)))

    suffixes = ["l0", "l0_reverse"][: layer.num_directions]
    return [
        np.stack([gates(f"weight_ih_{suffix}") for suffix in suffixes]),
        np.stack([gates(f"weight_hh_{suffix}") for suffix in suffixes]),
        np.stack(
            [np.concatenate([gates(f"bias_ih_{suffix}"), gates(f"bias_hh_{suffix}")]) for suffix in suffixes]
        ),
    ]


def batch_first(builder: GraphBuilder, sequence: str) -> str:
    """Add a transposition, (T, B, C) -> (B, T, C)."""
    return builder.node("Transpose", [sequence], ["hidden.batch_first"], perm=[1, 0, 2])


def norm(builder: GraphBuilder, network: SequenceNetwork, rows: str) -> str:
    """Add the LayerNorm over the last axis, if the network has one."""
    layer = network.norm
    if not isinstance(layer, nn.LayerNorm):
        return rows
    weights = [
        builder.constant("norm.weight", array(layer.weight)),
        builder.constant("norm.bias", array(layer.bias)),
    ]
    return builder.node("LayerNormalization", [rows, *weights], ["norm"], axis=-1, epsilon=layer.eps)


def linear(builder: GraphBuilder, layer: nn.Module, rows: str, name: str) -> str:
    """Add a linear layer over the last axis, of any rank, with the output `name`; nothing of an Identity."""
    if not isinstance(layer, nn.Linear):
        return builder.node("Identity", [rows], [name])
    matrix = builder.constant(f"{name}.weight", array(layer.weight.T))
    product = builder.node("MatMul", [rows, matrix], [f"{name}.product"])
    return builder.node("Add", [product, builder.constant(f"{name}.bias", array(layer.bias))], [name])


def array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor's values as an array."""
    values: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return values
