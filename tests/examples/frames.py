"""Labels of feature rows, frame by frame: a whole bidirectional LSTM.

A film is a row of actions of 8 to 20 frames each. A frame's 12 features lie around its action's prototype
with so much noise that a frame alone is right about half the time; frames before and after it help. The
baseline is the nearest prototype.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract import spec
from tests.examples.made import SEED, Made, package, share_right, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

ACTIONS = ("reach", "grasp", "pour", "place")
FEATURES = 12
_NOISE = 1.8
_TRAIN_FRAMES = 48

Rows = NDArray[np.float64]


def film(generator: np.random.Generator, prototypes: Rows, length: int) -> tuple[Rows, list[int]]:
    """Return frames (T, 12) and the action of each."""
    actions: list[int] = []
    while len(actions) < length:
        other = [index for index in range(len(ACTIONS)) if not actions or index != actions[-1]]
        actions += [int(generator.choice(other))] * int(generator.integers(8, 21))
    chosen = actions[:length]
    return prototypes[chosen] + generator.normal(0, _NOISE, (length, FEATURES)), chosen


def make() -> Made:
    generator = np.random.default_rng(SEED)
    prototypes = generator.normal(0, 1, (len(ACTIONS), FEATURES))
    films = [film(generator, prototypes, _TRAIN_FRAMES) for _ in range(300)]
    frames = torch.from_numpy(np.stack([rows for rows, _ in films])).float()
    actions = torch.tensor([chosen for _, chosen in films])
    torch.manual_seed(SEED)
    config = SequenceConfig("whole", (LayerConfig("lstm", 20, "both"),), len(ACTIONS), features=FEATURES)
    network = SequenceNetwork(config)

    def loss() -> torch.Tensor:
        chosen = generator.integers(0, len(films), 32)
        outputs, _ = network(frames[chosen])
        return torch.nn.functional.cross_entropy(outputs.transpose(1, 2), actions[chosen])

    teach(network, loss, steps=90, learning_rate=0.02)
    asked = [film(generator, prototypes, int(generator.integers(20, 80))) for _ in range(40)]
    questions = [Example(torch.from_numpy(rows).float(), values=rows) for rows, _ in asked]
    output = spec.OutputSpec(kind="logits", labels=list(ACTIONS), steps="every")
    columns = [spec.FeatureColumn(name=f"feature{index}") for index in range(FEATURES)]
    return Made(
        package(
            "frames", network, spec.SequencesSpec(columns=columns, output=output), questions, "Labels frames."
        ),
        questions,
        share_right([[ACTIONS[action] for action in chosen] for _, chosen in asked]),
        bar=0.9,
        baseline=_nearest(prototypes, asked),
        wrong={
            "features are in another order": lambda one: replace(one, inputs=one.inputs.flip(1)),
            "time runs backwards": lambda one: replace(one, inputs=one.inputs.flip(0)),
            "each frame stands alone": lambda one: replace(
                one,
                inputs=one.inputs[
                    torch.randperm(len(one.inputs), generator=torch.Generator().manual_seed(0))
                ],
            ),
        },
    )


def _nearest(prototypes: Rows, asked: list[tuple[Rows, list[int]]]) -> float:
    found = [
        np.linalg.norm(rows[:, None] - prototypes, axis=2).argmin(1) == actions for rows, actions in asked
    ]
    return float(np.concatenate(found).mean())
