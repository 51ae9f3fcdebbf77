"""An anomaly score a minute on a stream: a chunk LSTM that forecasts the next minute of a load.

The load has a daily season, and noise that fades slowly. The score of a minute is the error of the forecast
made the minute before, in standard deviations of such errors: the network keeps the forecast as a state of
its own. Faults are steps of the load far inside its daily range. The score of an answer is the area under the
ROC curve; the baseline is the distance from the mean load.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract import spec
from tests.examples.made import SEED, Made, package, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

MINUTES = 24 * 60
NUM_FAULTS = 6
# Minutes at the start of a series that are not judged: the network has seen too little.
WARM_UP = 20
_FAULT_KW = 0.8
_TRAIN_MINUTES = 96

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Watched:
    """A series (T, 3) of load, sine and cosine of the time of day, and the minutes of its faults."""

    rows: Rows
    faults: tuple[int, ...] = ()


def watched(generator: np.random.Generator, length: int, num_faults: int = 0) -> Watched:
    angle = 2 * np.pi * (generator.integers(MINUTES) + np.arange(length)) / MINUTES
    load = 5 + 2 * np.sin(angle) + np.sin(2 * angle + 1)
    noise = 0.0
    for minute in range(length):
        noise = 0.8 * noise + generator.normal(0, 0.06)
        load[minute] += noise
    faults = generator.choice(np.arange(WARM_UP, length, 5), num_faults, replace=False)
    load[faults] += generator.choice([-_FAULT_KW, _FAULT_KW], num_faults)
    rows = np.stack([load, np.sin(angle), np.cos(angle)], axis=1)
    return Watched(rows, tuple(map(int, faults)))


def make() -> Made:
    generator = np.random.default_rng(SEED)
    series = np.stack([watched(generator, _TRAIN_MINUTES).rows for _ in range(600)])
    mean, scale = float(series[..., 0].mean()), float(series[..., 0].std())
    features = torch.from_numpy((series - (mean, 0, 0)) / (scale, 1, 1)).float()
    torch.manual_seed(SEED)
    config = SequenceConfig("chunk", (LayerConfig("lstm", 16),), 1, features=3, is_error=True)
    network = SequenceNetwork(config)

    def loss() -> torch.Tensor:
        chosen = features[generator.integers(0, 500, 48)]
        return (network.forecasts(chosen)[:, WARM_UP:-1] - chosen[:, WARM_UP + 1 :, :1]).square().mean()

    teach(network, loss, steps=220, learning_rate=0.02)
    with torch.no_grad():
        kept = features[500:]
        errors = network.forecasts(kept)[:, WARM_UP:-1] - kept[:, WARM_UP + 1 :, :1]
        network.deviation.copy_(errors.std())
    asked = [watched(generator, int(generator.integers(150, 300)), NUM_FAULTS) for _ in range(12)]
    questions = [
        Example(torch.from_numpy((one.rows - (mean, 0, 0)) / (scale, 1, 1)).float(), values=one.rows)
        for one in asked
    ]
    return Made(
        package("anomaly", network, _section(mean, scale), questions, "Scores each minute of a load."),
        questions,
        lambda found: area(asked, [one.values[:, 0] for one in found]),
        bar=0.97,
        baseline=area(asked, [np.abs(one.rows[:, 0] - mean) for one in asked]),
        wrong={
            "values are not scaled": lambda one: replace(one, inputs=torch.tensor(one.values).float()),
            "time of day is missing": lambda one: replace(one, inputs=one.inputs * torch.tensor([1, 0, 0])),
        },
    )


def _section(mean: float, scale: float) -> spec.SequencesSpec:
    columns = [
        spec.FeatureColumn(name="load", unit="kW", mean=mean, scale=scale),
        spec.FeatureColumn(name="day_sine"),
        spec.FeatureColumn(name="day_cosine"),
    ]
    score = spec.OutputColumn(name="score", unit="standard deviations")
    return spec.SequencesSpec(
        columns=columns, output=spec.OutputSpec(kind="numbers", columns=[score], steps="every")
    )


def area(asked: Sequence[Watched], scores: Sequence[NDArray[np.floating]]) -> float:
    """Return the share of pairs of a fault and another minute in which the fault has the larger score.

    The minutes right after a fault are left out: what they are compared with is the fault.
    """
    faulty, others = [], []
    for one, row in zip(asked, scores, strict=True):
        after = {fault + offset for fault in one.faults for offset in range(1, 5)}
        for minute in range(WARM_UP, len(row)):
            if minute in one.faults:
                faulty.append(row[minute])
            elif minute not in after:
                others.append(row[minute])
    return float((np.array(faulty)[:, None] > np.array(others)).mean())
