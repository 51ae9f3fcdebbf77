"""Scales a forecaster by how much its series has moved of late, so that calm and wild times look alike to it.

The measure is an exponentially weighted mean of squared features, as RiskMetrics (J. P. Morgan 1996) has it,
drawn towards the training part's by a prior that counts as a number of observations. With d the decay, n the
prior and q[t] the mean of the squares of the features that are measured, each in units in which its mean
square in the training part is 1:

    sum[t] = d * sum[t-1] + q[t]        weight[t] = d * weight[t-1] + 1        both 0 before the first
    deviation[t] = sqrt((sum[t] + n) / (weight[t] + n))

A sequence's first observation has no change of its own and is left out of both. Features are divided by the
deviation of their own time step before they enter the network, and its outputs are multiplied by it. Only the
past enters, the recurrence is linear, and its state is one row of numbers a sequence, which is cut and
resumed like any other state. Arrays are batch first.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STATE = "volatility"
# Sum, weight, and whether the sequence has begun (0 or 1).
STATE_WIDTH = 3


@dataclass(frozen=True, slots=True)
class Volatility:
    """Parameters of the measure.

    Attributes:
        measured: indices of the features whose squares are averaged: changes in the target's unit.
        mean_squares: of each of these in the training part, above 0.
        divided: indices of the features that are divided by the deviation.
        decay: of what was seen before, a time step; above 0, below 1.
        prior: observations that the training part counts as; above 0, so that a series that stands still has
            a deviation above 0.
    """

    measured: tuple[int, ...]
    mean_squares: tuple[float, ...]
    divided: tuple[int, ...]
    decay: float
    prior: float

    def __post_init__(self) -> None:
        if not (min(self.mean_squares) > 0 and 0 < self.decay < 1 and self.prior > 0):
            raise ValueError(
                "expected mean_squares above 0, decay between 0 and 1 and prior above 0, "
                f"found {self.mean_squares}, {self.decay} and {self.prior}"
            )

    def mask(self, features: int) -> NDArray[np.float32]:
        """Return 1 for each feature that is divided and 0 for each other: float32 (F,)."""
        mask = np.zeros(features, np.float32)
        mask[list(self.divided)] = 1
        return mask


def deviations(
    volatility: Volatility, features: Tensor, lengths: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Measure every row of a batch at every time step.

    Args:
        volatility: its parameters.
        features: float32 (B, T, F).
        lengths: int64 (B,), valid steps of each row; None: all are T.
        state: float32 (B, 3), after what came before; zeros at the start of a sequence.
    Returns:
        The deviation at each step, float32 (B, T), of which those past a row's length mean nothing; and the
        state after each row's last valid step, float32 (B, 3).
    """
    units = features.new_tensor(volatility.mean_squares)  # (K,)
    squares = (features[:, :, list(volatility.measured)].square() / units).mean(dim=2)  # (B, T)
    total, weight, begun = state.unbind(dim=1)  # (B,) each
    found: list[Tensor] = []
    after = state
    for step, square in enumerate(squares.unbind(dim=1)):
        total = volatility.decay * total + begun * square
        weight = volatility.decay * weight + begun
        begun = torch.ones_like(begun)
        found.append(((total + volatility.prior) / (weight + volatility.prior)).sqrt())
        now = torch.stack([total, weight, begun], dim=1)
        after = now if lengths is None else torch.where((lengths > step)[:, None], now, after)
    return torch.stack(found, dim=1), after


def divided(volatility: Volatility, features: Tensor, deviation: Tensor) -> Tensor:
    """Return the features (B, T, F), those that are to be divided by the deviation (B, T) divided."""
    mask = torch.from_numpy(volatility.mask(features.shape[2])).to(features)
    return features * (mask / deviation[:, :, None] + (1 - mask))
