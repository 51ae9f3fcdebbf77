"""Decides whether a forecaster is scaled by recent volatility, and by which decay and prior.

No network is trained for that. An interval of constant width, by the training part's quantiles, is compared
on the development part with the same interval in units of the deviation of `training.networks.volatility`,
over a grid of parameters. Of the parameters whose pinball loss is near the least, those are taken whose
interval is nearest to its share at the shortest and at the longest windows: sharpness subject to calibration
(Gneiting, Balabdaoui & Raftery 2007). The pinball loss alone is ruled by wild days, and would take parameters
that leave the interval too wide on calm ones. Arrays are batch first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.spec import ForecastSpec
from training.data.series import Floats, History, features_of, targets_of
from training.networks.volatility import STATE_WIDTH, Volatility, deviations
from training.recipes.baselines import constant_interval

DECAYS = (0.8, 0.85, 0.9, 0.94, 0.97, 0.985)
PRIORS = (0.5, 1.0, 2.0, 4.0, 8.0)
# Parameters are near the best if their pinball loss is at most so many times the least. Of 1.01, 1.003 and
# 1.002 the last gave the shipped network the least development loss (0.1656, 0.1641 and 0.1640, seed 0).
NEAR = 1.002
# Scaling must bring at least this share of the constant interval's pinball loss: the best of a grid wins by a
# little on a series of constant volatility, too.
LEAST_GAIN = 0.005
# A shorter development part does not tell parameters apart.
FEWEST_DEVELOPMENT_DAYS = 50


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of an interval on the development part.

    Attributes:
        volatility: what it was scaled by; None: constant width.
        pinball: mean loss over window lengths, in units of the forecast's scales.
        miss: largest distance of a window length's coverage from the interval's share, 0..1.
    """

    volatility: Volatility | None
    pinball: float
    miss: float

    def __str__(self) -> str:
        """Return a line for people."""
        measured = f"development pinball {self.pinball:.4f}, coverage off by {100 * self.miss:.1f} % at most"
        if self.volatility is None:
            return f"constant interval: {measured}"
        return (
            f"interval scaled by recent volatility (decay {self.volatility.decay:g}, "
            f"prior {self.volatility.prior:g}): {measured}"
        )


def choose_volatility(
    history: History, forecast: ForecastSpec, lengths: Sequence[int]
) -> tuple[Volatility | None, tuple[Trial, ...]]:
    """Try the grid on the development part.

    Nothing from the held-out part on is read.

    Args:
        history: the series, cut.
        forecast: its description; scales are those of the training part.
        lengths: of windows, 2 or more each: the shortest and the longest.
    Returns:
        The measure, None where it does not win or the development part is too short; and the trials to show:
        the constant interval, and the best scaled one. None are made where the part is too short.
    """
    train = np.arange(min(lengths) - 1, history.develop - forecast.horizon)
    develop = np.arange(history.develop - 1, history.held_out - forecast.horizon)
    if len(develop) < FEWEST_DEVELOPMENT_DAYS:
        return None, ()
    known = History(history.values[: history.held_out], history.develop, history.held_out)
    comparison = _Comparison(
        forecast,
        features_of(known.values, forecast),
        targets_of(known, forecast) / np.array(forecast.scales),
        train,
        develop,
        tuple(lengths),
    )
    return _chosen(comparison, history.develop)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Data of the trials.

    Attributes:
        forecast: description of the series.
        features: float32 (N, F), of the whole series as one window.
        targets: float64 (N, horizon), in units of the scales.
        train, develop: last observations of the windows of each part.
        lengths: of windows.
    """

    forecast: ForecastSpec
    features: NDArray[np.float32]
    targets: Floats
    train: NDArray[np.int64]
    develop: NDArray[np.int64]
    lengths: tuple[int, ...]

    def trial(self, volatility: Volatility | None) -> Trial:
        """Measure an interval at every window length."""
        levels = np.array(self.forecast.quantiles)
        pinballs, misses = [], []
        for length in self.lengths:
            train = self._deviation(volatility, self.train, length)
            develop = self._deviation(volatility, self.develop, length)
            constant = constant_interval(self.targets[self.train] / train, self.forecast.quantiles)
            quantiles = develop[:, :, None] * constant  # (D, horizon, levels)
            targets = self.targets[self.develop]
            error = targets[:, :, None] - quantiles
            pinballs.append(float(np.maximum(levels * error, (levels - 1) * error).mean()))
            inside = (quantiles[:, :, 0] <= targets) & (targets <= quantiles[:, :, -1])
            misses.append(abs(float(inside.mean()) - float(levels[-1] - levels[0])))
        return Trial(volatility, float(np.mean(pinballs)), max(misses))

    def _deviation(self, volatility: Volatility | None, days: NDArray[np.int64], length: int) -> Floats:
        """Return the deviation after the last observation of each window: float64 (D, 1)."""
        if volatility is None:
            return np.ones((len(days), 1))
        first = np.maximum(days - length + 1, 0)
        # (D, T): past a window's end its last observation stands in, which `lengths` leaves out. The features
        # of a window's first observation differ from those here, but the measure does not look at them.
        places = np.minimum(first[:, None] + np.arange(length), days[:, None])
        windows = torch.from_numpy(self.features[places])
        ends = torch.from_numpy(days - first + 1)
        found, _ = deviations(volatility, windows, ends, torch.zeros(len(days), STATE_WIDTH))
        return found[torch.arange(len(days)), ends - 1].double().numpy()[:, None]


def _chosen(comparison: _Comparison, develop: int) -> tuple[Volatility | None, tuple[Trial, ...]]:
    forecast, features = comparison.forecast, comparison.features.astype(np.float64)
    prices = tuple(
        index for index, column in enumerate(forecast.columns) if column.reference == forecast.target
    )
    mean_squares = tuple(np.mean(features[1:develop, prices] ** 2, axis=0).tolist())
    constant = comparison.trial(None)
    scaled = [
        comparison.trial(Volatility(prices, mean_squares, prices, decay, prior))
        for decay, prior in product(DECAYS, PRIORS)
    ]
    near = NEAR * min(trial.pinball for trial in scaled)
    best = min((trial for trial in scaled if trial.pinball <= near), key=lambda trial: trial.miss)
    wins = best.pinball <= (1 - LEAST_GAIN) * constant.pinball
    return best.volatility if wins else None, (constant, best)
