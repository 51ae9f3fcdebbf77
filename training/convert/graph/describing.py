"""Describes the recurrent layers of a graph, for people."""

from collections.abc import Sequence

import onnx

from service.contract import spec
from training.convert.graph.copying import attributes_of, every_node, subgraphs

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


def looped_layer(graph: onnx.GraphProto) -> spec.Layer:
    """Return the layer that stands for a recurrence inside a loop, whose kind and width no node says.

    It bounds the memory of a run, so that it is the largest that the weights allow: an LSTM of the width of
    the widest matrix.
    """
    graphs = [graph, *(inner for node in every_node(graph.node) for inner in subgraphs(node))]
    widths = [min(one.dims) for each in graphs for one in each.initializer if len(one.dims) == 2]
    return spec.Layer(kind="lstm", width=max(widths, default=1))


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
