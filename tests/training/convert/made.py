"""Conversions made by hand: graphs of small random networks with examples that PyTorch computed."""

import numpy as np
import torch

from service.contract import spec
from tests.training.export.sequences.random_networks import examples_of, network_of
from training.convert.converted import Comparison, Converted, Example
from training.export.sequences.compare import reference
from training.export.sequences.graphs import chunk_graph, init_graph, whole_graph
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

SERIES = SequenceConfig("chunk", (LayerConfig("lstm", 6),), 3, features=2)
LETTERS = SequenceConfig("chunk", (LayerConfig("gru", 8),), 5, vocabulary=5, embedding=4)
WORDS = SequenceConfig("chunk", (LayerConfig("gru", 8),), 2, vocabulary=10, embedding=4)
POOLED = SequenceConfig(
    "whole", (LayerConfig("gru", 5, "both"),), 3, vocabulary=10, embedding=4, pooling="max"
)
IMAGE = SequenceConfig("chunk", (LayerConfig("gru", 4),), 3, features=2, initial=(("image", 3),))
SOURCE = spec.Source(file="made.onnx", sha256="0" * 64, framework="PyTorch", opset=17)


def converted_of(
    config: SequenceConfig, *, lengths: tuple[int, ...] = (5, 12), every_step: bool = True
) -> Converted:
    """Return the conversion of a random network, the same one each time."""
    network = network_of(config)
    is_whole = config.kind == "whole"
    pooled = config.pooling is not None
    return Converted(
        kind=config.kind,
        graph=whole_graph(network, "lengths") if is_whole else chunk_graph(network),
        layers=tuple(
            spec.Layer(kind=one.kind, width=one.width, direction=one.direction) for one in config.layers
        ),
        input=spec.TokenInput(kind="tokens", size=config.vocabulary)
        if config.vocabulary
        else spec.FeatureInput(kind="features", size=config.features),
        outputs=config.output_size,
        every_step=every_step and not pooled,
        examples=tuple(_examples(network, lengths, every_step and not pooled)),
        comparisons=(Comparison("each alone", 6, 62, 0.0), Comparison("in chunks of 4", 6, 62, 3e-7)),
        init=init_graph(network) if config.initial else None,
        states=()
        if is_whole
        else tuple(
            spec.State(input=name, output=name + spec.NEXT_SUFFIX, size=size) for name, size in config.states
        ),
        initial=tuple(spec.NamedWidth(name=name, size=size) for name, size in config.initial),
        pooled=pooled,
        found=("layers: as made",),
    )


def _examples(network: SequenceNetwork, lengths: tuple[int, ...], every_step: bool) -> list[Example]:
    found = []
    for one in examples_of(network.config, lengths):
        outputs, last = reference(network, one), len(one.inputs) - 1
        steps = (0, last) if every_step else (last,)
        rows = outputs[list(steps)] if len(outputs) > 1 else outputs
        initial = {name: row.numpy() for name, row in one.initial.items()}
        found.append(Example(one.inputs.numpy(), steps, rows, initial))
    return found


def answered(config: SequenceConfig, inputs: np.ndarray) -> np.ndarray:
    """Return what PyTorch computes for a sequence, float32 (T, outputs), or (1, outputs) if pooled."""
    network = network_of(config)
    with torch.no_grad():
        outputs, _ = network(torch.from_numpy(inputs)[None], state=None)
    rows: np.ndarray = outputs.reshape(-1, outputs.shape[-1]).numpy()
    return rows
