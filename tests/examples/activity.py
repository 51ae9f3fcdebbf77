"""Activity from three axes at 50 Hz: a chunk LSTM, one label a sequence.

A step of an activity is a sum of two sines along the vertical, turned by a random way to wear the sensor.
Activities differ in how often a step is taken and in its second harmonic; their strengths overlap. The
baseline is the nearest mean of (mean, standard deviation) of the axes.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract import spec
from tests.examples.made import SEED, Made, package, share_right, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

RATE_HZ = 50
LABELS = ("sit", "walk", "climb", "run")
AXES = ("ax", "ay", "az")
# Steps a second, their strength in m/s2, and that of the second harmonic beside the first.
_STEPS_HZ = {"walk": (1.7, 2.2), "climb": (1.0, 1.3), "run": (2.6, 3.2)}
_STRENGTH = {"walk": (2, 4), "climb": (2, 4), "run": (4, 7)}
_HARMONIC = {"walk": 0.2, "climb": 0.9, "run": 0.1}
_GRAVITY = 9.81

Rows = NDArray[np.float64]


def rows_of(label: str, generator: np.random.Generator) -> Rows:
    """Return 1.5 to 2.5 s of an activity, (T, 3) in m/s2."""
    length = int(generator.integers(75, 126))
    vertical = np.zeros(length)
    if label != "sit":
        seconds = np.arange(length) / RATE_HZ
        phase = 2 * np.pi * (seconds * generator.uniform(*_STEPS_HZ[label]) + generator.random())
        vertical = generator.uniform(*_STRENGTH[label]) * (
            np.sin(phase) + _HARMONIC[label] * np.sin(2 * phase)
        )
    tilt = np.array([0, 0, 1]) + generator.normal(0, 0.3, 3)
    worn = tilt / np.linalg.norm(tilt)
    return (_GRAVITY + vertical)[:, None] * worn + generator.normal(0, 0.6, (length, 3))


def make() -> Made:
    generator = np.random.default_rng(SEED)
    labels = [LABELS[index % len(LABELS)] for index in range(800)]
    rows = [rows_of(label, generator) for label in labels]
    together = np.concatenate(rows)
    mean, scale = together.mean(0), together.std(0)
    columns = [
        spec.FeatureColumn(name=name, unit="m/s2", mean=float(mean[axis]), scale=float(scale[axis]))
        for axis, name in enumerate(AXES)
    ]
    section = spec.SequencesSpec(
        columns=columns, output=spec.OutputSpec(kind="logits", labels=list(LABELS), steps="last")
    )
    torch.manual_seed(SEED)
    network = SequenceNetwork(
        SequenceConfig("chunk", (LayerConfig("lstm", 24),), len(LABELS), features=3, has_norm=True)
    )
    features = [torch.from_numpy((one - mean) / scale).float() for one in rows]
    targets = torch.tensor([LABELS.index(label) for label in labels])

    def loss() -> torch.Tensor:
        chosen = generator.integers(0, len(rows), 32)
        inputs = torch.stack([features[index][:75] for index in chosen])
        outputs, _ = network(inputs)
        # From half a second on.
        logits = outputs[:, RATE_HZ // 2 :].transpose(1, 2)
        return torch.nn.functional.cross_entropy(logits, targets[chosen, None].expand(-1, logits.shape[2]))

    teach(network, loss, steps=280, learning_rate=0.02)
    truth = [LABELS[index % len(LABELS)] for index in range(100)]
    asked = [rows_of(label, generator) for label in truth]
    questions = [_question(one, mean, scale) for one in asked]
    return Made(
        package("activity", network, section, questions, "Says what somebody is doing."),
        questions,
        share_right([[label] for label in truth]),
        bar=0.9,
        baseline=_nearest(rows, labels, asked, truth),
        wrong={
            "values are not scaled": lambda one: replace(one, inputs=torch.tensor(one.values).float()),
            "time runs at half the rate": lambda one: replace(one, inputs=one.inputs[::2]),
            "steps are shuffled": lambda one: replace(
                one,
                inputs=one.inputs[
                    torch.randperm(len(one.inputs), generator=torch.Generator().manual_seed(0))
                ],
            ),
        },
    )


def _question(rows: Rows, mean: Rows, scale: Rows) -> Example:
    return Example(torch.from_numpy((rows - mean) / scale).float(), values=rows)


def _nearest(rows: list[Rows], labels: list[str], asked: list[Rows], truth: list[str]) -> float:
    def facts(one: Rows) -> Rows:
        return np.concatenate([one.mean(0), one.std(0)])

    means = {
        label: np.mean(
            [facts(one) for one, right in zip(rows, labels, strict=True) if right == label], axis=0
        )
        for label in LABELS
    }
    found = [min(LABELS, key=lambda label: float(np.linalg.norm(facts(one) - means[label]))) for one in asked]
    return sum(label == right for label, right in zip(found, truth, strict=True)) / len(truth)
