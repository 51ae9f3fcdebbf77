"""Scaling by recent volatility: chosen on the development part, and calibrated in calm and in wild times."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.training.conftest import GOOG_TABLE, random_walk
from training.data.series import History, describe, split
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes.stock import Windows, window_outputs
from training.recipes.volatility import choose_volatility

LENGTHS = (7, 64)
SPELL = 250
CALM, WILD = 0.005, 0.02


def _changing(days: int) -> NDArray[np.float64]:
    """Return prices of a series whose volatility is four times as high in every second spell: (days, 5)."""
    generator = np.random.default_rng(0)
    deviation = np.where(np.arange(days) // SPELL % 2, WILD, CALM)
    close = 100 * np.exp(np.cumsum(deviation * generator.normal(size=days)))
    start = close * np.exp(0.3 * deviation * generator.normal(size=days))
    high = np.maximum(start, close) * np.exp(0.3 * deviation)
    low = np.minimum(start, close) * np.exp(-0.3 * deviation)
    return np.stack([start, high, low, close, np.exp(generator.normal(10, 1, days))], axis=1)


def test_changing_volatility_is_scaled_and_a_steady_one_is_not() -> None:
    for values, expected in ((_changing(4000), True), (random_walk(4000), False)):
        history = split(values)
        chosen, trials = choose_volatility(history, describe(history, GOOG_TABLE), LENGTHS)
        assert (chosen is not None) == expected
        assert [trial.volatility is None for trial in trials] == [True, False]


def test_choice_looks_at_nothing_held_out() -> None:
    history = split(_changing(2000))
    other = History(history.values.copy(), history.develop, history.held_out)
    other.values[history.held_out :] *= 3
    forecast = describe(history, GOOG_TABLE)
    assert choose_volatility(other, forecast, LENGTHS) == choose_volatility(history, forecast, LENGTHS)


def test_short_development_part_chooses_nothing() -> None:
    history = split(_changing(300))
    assert choose_volatility(history, describe(history, GOOG_TABLE), LENGTHS) == (None, ())


@pytest.mark.parametrize("is_scaled", [True, False])
def test_interval_holds_its_share_in_calm_and_in_wild_times(is_scaled: bool) -> None:
    """A network without weights forecasts the same quantiles each day: those of the training part.

    Scaled, they hold 76 to 84 % in each kind of spell, once a window lies within one; in one width they hold
    nearly everything in calm spells, and far too little in wild ones.
    """
    history = split(_changing(8000))
    forecast = describe(history, GOOG_TABLE)
    volatility, _ = choose_volatility(history, forecast, LENGTHS)
    assert volatility is not None
    config = NetworkConfig("gru", 1, 4, 15, features=5, volatility=volatility if is_scaled else None)
    network = build_network(config, 0, "cpu").eval()
    days = np.arange(100, len(history.values) - forecast.horizon)
    days = days[days % SPELL >= LENGTHS[-1]]
    days = days[days % SPELL < SPELL - forecast.horizon]
    log = np.log(history.values[:, 3])
    ahead = np.stack([log[days + step] - log[days] for step in range(1, 6)], axis=1) / forecast.scales
    with torch.no_grad():
        network.head.get_parameter("weight").zero_()
        network.head.get_parameter("bias").fill_(1.0)
        windows = Windows(days, np.full(len(days), LENGTHS[-1]))
        width = window_outputs(network, history, forecast, windows, "cpu").numpy()[:, :, 0]  # (D, horizon)
    train = days < history.develop
    low, high = np.quantile((ahead / width)[train], [0.1, 0.9], axis=0)
    inside = (low * width <= ahead) & (ahead <= high * width)
    is_wild = days // SPELL % 2 == 1
    calm, wild = (100 * inside[~train & kind].mean() for kind in (~is_wild, is_wild))
    if is_scaled:
        assert 76 <= calm <= 84
        assert 76 <= wild <= 84
    else:
        assert calm > 95
        assert wild < 72
