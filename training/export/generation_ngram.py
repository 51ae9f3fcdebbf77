"""Writes a step of an LSTM that is mixed with an n-gram, with the bits of its chunk cell."""

import onnx

from service.contract import spec
from service.contract.generation_graph import NAMES
from training.export.external_weights import ExternalWeights
from training.export.generation_graph import Body, StateTensor
from training.export.generation_lstm import lstm_body
from training.export.graph_builder import GraphBuilder
from training.export.ngram import add_mixture, add_step_contexts, table_names
from training.networks.mixture import CONTEXT_STATE, MixedNetwork

_LOGITS = "head.logits"


def mixed_lstm_body(network: MixedNetwork, graph: bytes, file: str) -> Body:
    """Return the body.

    Args:
        network: for whose shape `has_lstm_body` is true.
        graph: its chunk cell, from `training.export.graph.build_graph`, serialized.
        file: name of the file of that.
    """
    body = lstm_body(network.config, graph, file)
    *below, head = body.nodes
    renamed = onnx.NodeProto()
    renamed.CopyFrom(head)
    renamed.output[0] = _LOGITS
    external = ExternalWeights(graph, file)
    weights = {one.name: one for one in onnx.load_from_string(graph).graph.initializer}
    tables = [external.tensor(weights[name], name, weights[name].dims) for name in table_names()]
    builder = GraphBuilder()
    contexts = add_step_contexts(builder, network, NAMES.token)
    add_mixture(builder, network, _LOGITS, contexts)
    state = StateTensor(CONTEXT_STATE, CONTEXT_STATE + spec.NEXT_SUFFIX, network.table.order - 1)
    return Body(
        [*below, renamed, *builder.nodes],
        spec.OUTPUT,
        [*body.states, state],
        [*body.initializers, *tables, *builder.initializers],
    )
