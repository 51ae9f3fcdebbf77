"""Random networks of contract 2, with weights large enough that outputs differ clearly, and their inputs."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork


def network_of(config: SequenceConfig, seed: int = 0) -> SequenceNetwork:
    """Return an untrained network; learned starts are random, too."""
    torch.manual_seed(seed)
    network = SequenceNetwork(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
        for start in network.starts:
            nn.init.normal_(start)
        network.deviation.uniform_(0.5, 2)
    return network


def examples_of(config: SequenceConfig, lengths: tuple[int, ...], seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Example(
            torch.randint(config.vocabulary, (length,), generator=generator)
            if config.vocabulary
            else torch.randn(length, config.features, generator=generator),
            initial={name: torch.randn(size, generator=generator) for name, size in config.initial},
        )
        for length in lengths
    ]


@st.composite
def configs(draw: st.DrawFn) -> SequenceConfig:
    is_whole = draw(st.booleans())
    directions = st.sampled_from(["forward", "backward", "both"] if is_whole else ["forward"])
    layers = st.builds(
        LayerConfig, st.sampled_from(["lstm", "gru", "rnn"]), st.integers(1, 20), directions
    ) | st.builds(LayerConfig, st.just("rnn"), st.integers(1, 9), directions, st.just("relu"))
    size, embedding = draw(st.integers(1, 7)), draw(st.integers(0, 6))
    is_tokens = draw(st.booleans())
    chunk_only: dict[str, Any] = {
        "starts": draw(st.sampled_from(["zeros", "learned"])),
        "initial": draw(st.sampled_from([(), (("image", 3),), (("image", 2), ("place", 1))])),
        "is_error": not is_tokens and draw(st.booleans()),
    }
    outputs = draw(st.integers(0, 5))
    if not is_whole and chunk_only["is_error"]:
        outputs = draw(st.integers(1, size))
    return SequenceConfig(
        kind="whole" if is_whole else "chunk",
        layers=tuple(draw(st.lists(layers, min_size=1, max_size=3))),
        outputs=outputs,
        vocabulary=size if is_tokens else 0,
        features=0 if is_tokens else size,
        embedding=embedding + 1 if is_tokens else embedding,
        has_norm=draw(st.booleans()),
        pooling=draw(st.sampled_from([None, "last", "mean", "max"])) if is_whole else None,
        **({} if is_whole else chunk_only),
    )
