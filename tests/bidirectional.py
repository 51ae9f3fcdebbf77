"""Graphs of small untrained networks that look both ways."""

import torch

from service.contract.network import Padding
from training.export.sequences.graphs import whole_graph
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

LAYERS = 2


def bidirectional_graph(
    hidden: int,
    outputs: int,
    *,
    features: int = 0,
    vocabulary: int = 0,
    is_pooled: bool = True,
    padding: Padding = "lengths",
) -> bytes:
    """Return the graph of a stack of bidirectional LSTMs over features or over token ids."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = SequenceConfig(
            "whole",
            (LayerConfig("lstm", hidden, "both"),) * LAYERS,
            outputs,
            vocabulary=vocabulary,
            features=features,
            embedding=hidden if vocabulary else 0,
            pooling="last" if is_pooled else None,
        )
        network = SequenceNetwork(config).eval()
    graph: bytes = whole_graph(network, padding).SerializeToString()
    return graph
