"""Stretches or narrows the interval of quantile forecasts around the median.

Then it holds its share of the development part.

Split conformal prediction for quantile regression (Romano, Patterson & Candes 2019) with one multiplicative
factor for all steps ahead. The head is linear, so that the factor goes into its weights: the served graph
does not know of it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.networks.network import RecurrentNetwork

Floats = NDArray[np.float64]

# A short development part must not blow an interval up or take it away.
LEAST_FACTOR = 0.5
MOST_FACTOR = 2.0


def spread_factor(quantiles: Floats, targets: Floats, levels: Sequence[float]) -> float:
    """Return the factor of the outer quantiles' distances from the median that gives the interval its share.

    Args:
        quantiles: (N, horizon, levels), in any order.
        targets: (N, horizon), what came.
        levels: rising, 0.5 among them.
    """
    ordered = np.sort(quantiles, axis=2)
    low, middle, high = ordered[:, :, 0], ordered[:, :, levels.index(0.5)], ordered[:, :, -1]
    is_above = targets >= middle
    reach = np.where(is_above, high - middle, middle - low)
    distance = np.abs(targets - middle)
    needed = distance / np.maximum(reach, distance / MOST_FACTOR + np.finfo(np.float64).tiny)
    return float(np.clip(np.quantile(needed, levels[-1] - levels[0]), LEAST_FACTOR, MOST_FACTOR))


def is_near_share(quantiles: Floats, targets: Floats, levels: Sequence[float], independent: float) -> bool:
    """Return whether the interval's coverage is within one standard error of its share.

    Args:
        quantiles: (N, horizon, levels), in any order.
        targets: (N, horizon), what came.
        levels: rising.
        independent: number of independent targets among them.
    """
    share = levels[-1] - levels[0]
    inside = (quantiles.min(axis=2) <= targets) & (targets <= quantiles.max(axis=2))
    return bool(abs(inside.mean() - share) <= np.sqrt(share * (1 - share) / independent))


def spread(network: RecurrentNetwork, factor: float, levels: Sequence[float]) -> None:
    """Multiply the distance of every quantile from the median, in the network's head.

    Args:
        network: its outputs are (horizon x levels), step by step; changed in place.
        factor: 1 changes nothing.
        levels: 0.5 among them.
    """
    head = network.head
    assert isinstance(head, nn.Linear)
    median = levels.index(0.5)
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            by_level = parameter.view(-1, len(levels), *parameter.shape[1:])  # (horizon, levels, ...)
            middle = by_level[:, median : median + 1].clone()
            by_level.copy_(middle + factor * (by_level - middle))
