"""Stretching an interval: the factor found, and the head it goes into."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.loop.fit import build_network
from training.networks.calibration import LEAST_FACTOR, MOST_FACTOR, spread, spread_factor
from training.networks.network import NetworkConfig, RecurrentNetwork

LEVELS = (0.1, 0.5, 0.9)


def _outputs(
    network: RecurrentNetwork, hidden: torch.Tensor
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    with torch.no_grad():
        return network.outputs_of(hidden).view(len(hidden), -1, len(LEVELS)).double().numpy()


@given(scale=st.floats(0.6, 1.8), seed=st.integers(0, 1000))
def test_stretched_interval_holds_its_share(scale: float, seed: int) -> None:
    targets = np.random.default_rng(seed).normal(size=(400, 5))
    # Of a standard normal variable, the interval between these holds 80 %; it is given too narrow or too
    # wide.
    quantiles = np.broadcast_to(np.array([-1.2816, 0, 1.2816]) / scale, (400, 5, 3))
    factor = spread_factor(quantiles, targets, LEVELS)
    assert factor == pytest.approx(scale, rel=0.15)
    inside = np.abs(targets) <= factor * quantiles[:, :, 2]
    assert inside.mean() == pytest.approx(0.8, abs=0.002)


def test_factor_is_bounded() -> None:
    targets = np.array([[5.0]] * 10)
    assert spread_factor(np.zeros((10, 1, 3)), targets, LEVELS) == MOST_FACTOR
    assert spread_factor(np.array([[[-100.0, 0, 100]]] * 10), targets, LEVELS) == LEAST_FACTOR


def test_head_keeps_the_median_and_stretches_the_rest() -> None:
    network = build_network(NetworkConfig("gru", 1, 8, 15, features=5), 0, "cpu").eval()
    hidden = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    before = _outputs(network, hidden)
    spread(network, 1.5, LEVELS)
    middle = before[:, :, 1:2]
    np.testing.assert_allclose(_outputs(network, hidden), middle + 1.5 * (before - middle), atol=1e-6)
