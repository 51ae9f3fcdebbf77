"""An embedding in which sequences of one voice are nearer than those of others: pooled, of mixed layers.

A voice is two frequencies and how far each channel lags behind the first; all channels are equally loud, and
every sequence begins at a random time. The score is the share of triplets of unheard voices in which the
same voice is nearer than another. The baseline compares the means of the rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract import spec
from tests.examples.made import SEED, Made, package, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

CHANNELS = 6
WIDTH = 8
_STEPS = 40
_TEMPERATURE = 0.2

Rows = NDArray[np.float64]
Voice = tuple[Rows, Rows]


def voice(generator: np.random.Generator) -> Voice:
    """Return frequencies in cycles a step (2,), and the lags of the channels in radians (2, 6)."""
    return generator.uniform(0.03, 0.2, 2), generator.uniform(0, 2 * np.pi, (2, CHANNELS))


def spoken(generator: np.random.Generator, one: Voice, length: int) -> Rows:
    """Return a sequence of a voice, (T, 6)."""
    frequencies, lags = one
    steps = np.arange(length) + generator.uniform(0, 1000)
    angles = 2 * np.pi * frequencies[None, :, None] * steps[:, None, None] + lags  # (T, 2, 6)
    rows: Rows = np.sin(angles).sum(1) + generator.normal(0, 0.3, (length, CHANNELS))
    return rows


def make() -> Made:
    generator = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    layers = (LayerConfig("lstm", 24, "both"), LayerConfig("gru", 12))
    config = SequenceConfig("whole", layers, WIDTH, features=CHANNELS, pooling="mean", has_norm=True)
    network = SequenceNetwork(config)
    voices = [voice(generator) for _ in range(300)]

    def loss() -> torch.Tensor:
        chosen = generator.permutation(len(voices))[:24]
        rows = [spoken(generator, voices[index], _STEPS) for index in (*chosen, *chosen)]
        points, _ = network(torch.from_numpy(np.stack(rows)).float())
        return _contrast(torch.nn.functional.normalize(points))

    teach(network, loss, steps=160, learning_rate=0.01)
    unheard = [voice(generator) for _ in range(40)]
    asked = [spoken(generator, one, int(generator.integers(30, 60))) for one in unheard for _ in range(2)]
    questions = [Example(torch.from_numpy(rows).float(), values=rows) for rows in asked]
    section = spec.SequencesSpec(output=spec.OutputSpec(kind="embedding", steps="last"))
    return Made(
        package("voices", network, section, questions, "Embeds a voice."),
        questions,
        lambda found: triplets([one.values[0] for one in found]),
        bar=0.93,
        baseline=triplets([rows.mean(0) for rows in asked]),
        wrong={
            "channels are in an order of each sequence's own": lambda one: replace(
                one, inputs=_shuffled(one.inputs.T).T
            ),
        },
    )


def _shuffled(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows in an order that depends on their number and values."""
    generator = torch.Generator().manual_seed(int(rows.abs().sum() * 1000))
    return rows[torch.randperm(len(rows), generator=generator)]


def _contrast(points: torch.Tensor) -> torch.Tensor:
    """Return the loss of finding each point's partner, which stands half the batch further on."""
    likeness = points @ points.T / _TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(len(points), dtype=torch.bool), -torch.inf)
    partner = torch.arange(len(points)).roll(len(points) // 2)
    return torch.nn.functional.cross_entropy(likeness, partner)


def triplets(points: Sequence[NDArray[np.floating]]) -> float:
    """Return the share of triplets in which a point's partner, next to it, is nearer than another voice."""
    stacked = np.stack(points)
    stacked = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    likeness = stacked @ stacked.T
    count = len(points) // 2
    right = [
        likeness[2 * one, 2 * one + 1] > likeness[2 * one, 2 * other]
        for one in range(count)
        for other in range(count)
        if other != one
    ]
    return float(np.mean(right))
