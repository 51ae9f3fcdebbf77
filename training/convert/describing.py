"""Describes the recurrent layers of a graph, for people."""

from collections.abc import Sequence

import onnx

from service.contract import spec
from training.convert.copying import attributes_of

_DIRECTIONS = {b"forward": "forward", b"reverse": "backward", b"bidirectional": "both"}
_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn", "DynamicQuantizeLSTM": "lstm"}
_USUAL = {
    "lstm": ["sigmoid", "tanh", "tanh"],
    "gru": ["sigmoid", "tanh"],
    "rnn": ["tanh"],
}


def layers_of(nodes: Sequence[onnx.NodeProto]) -> tuple[spec.Layer, ...]:
    """Return the layers of recurrent nodes."""
    return tuple(_layer(node) for node in nodes)


def _layer(node: onnx.NodeProto) -> spec.Layer:
    attributes = attributes_of(node)
    kind = _CELLS[node.op_type]
    described = {
        "kind": kind,
        "width": int(attributes["hidden_size"]),
        "direction": _DIRECTIONS[attributes.get("direction", b"forward")],
    }
    names = [one.decode() for one in attributes.get("activations", ())]
    one_direction = names[: len(_USUAL[kind])]
    if names and [one.lower() for one in one_direction] != _USUAL[kind]:
        described["activations"] = one_direction
    return spec.Layer.model_validate(described)
