"""training.recipes.seasonal: the season that is found, and the baselines."""

import numpy as np
import pytest

from training.data.forecasting import Choice, Prepared, describe_forecast, prepare
from training.data.series import choose, split
from training.data.sources import GOOG
from training.errors import TrainingError
from training.recipes.seasonal import (
    LinearModel,
    chosen_period,
    dummy_cycles,
    errors_of,
    find_period,
    season_ago,
)

TABLE = choose(GOOG, ["close"], "close", None, "date")


def prepared(target: np.ndarray) -> Prepared:
    history = split(target[:, None])
    choice = Choice(3, (0.1, 0.5, 0.9), 24, "none", True, (), has_lags=False)
    return prepare(history, describe_forecast(history, TABLE, choice))


def waves(period: int, rows: int, noise: float, seed: int = 0) -> np.ndarray:
    spread = np.random.default_rng(seed).normal(0, noise, rows)
    return (
        np.sin(2 * np.pi * np.arange(rows) / period)
        + 0.3 * np.cos(4 * np.pi * np.arange(rows) / period)
        + spread
    )


@pytest.mark.parametrize("period", [4, 7, 12, 24, 96])
@pytest.mark.parametrize("trend", [0.0, 0.05])
def test_season_is_found_below_a_trend(period: int, trend: float) -> None:
    target = waves(period, 10 * period + 5, 0.02) + trend * np.arange(10 * period + 5)
    assert find_period(target) == period


def test_shortest_of_alike_seasons_is_found() -> None:
    week = waves(24, 24 * 7 * 6, 0.02)
    assert find_period(week) == 24


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_no_season(seed: int) -> None:
    generator = np.random.default_rng(seed)
    assert find_period(generator.normal(size=500)) == 0
    assert find_period(generator.normal(size=500).cumsum()) == 0


@pytest.mark.parametrize("target", [np.arange(100.0), np.zeros(100), np.arange(3.0)])
def test_series_that_does_not_turn_has_no_season(target: np.ndarray) -> None:
    assert find_period(target) == 0


@pytest.mark.parametrize("option", [1, -1, 51])
def test_period_that_training_does_not_hold_twice_is_refused(option: int) -> None:
    with pytest.raises(TrainingError, match=rf"--period: expected 2\.\.50 rows, .* found {option}"):
        chosen_period(option, np.zeros(100))


def test_given_period_counts_more_than_the_one_found() -> None:
    assert chosen_period(12, waves(24, 240, 0.02)) == 12


def test_season_ago_never_looks_ahead() -> None:
    target, days = np.arange(200.0), np.array([60, 100])
    for horizon, period in ((5, 3), (24, 24), (30, 24), (1, 7)):
        found = season_ago(target, days, horizon, period)
        ahead = days[:, None] + np.arange(1, horizon + 1)
        assert (found <= days[:, None]).all()
        assert ((ahead - found) % period == 0).all()
        assert (ahead - found < horizon + period).all()


def test_errors_are_put_around_a_forecast_without_moving_its_median() -> None:
    generator = np.random.default_rng(0)
    forecast = generator.normal(size=(4000, 2))
    future = forecast + 3 + generator.normal(size=(4000, 2)) * np.array([1.0, 2.0])
    found = errors_of(future, forecast, [0.1, 0.5, 0.9]).around(np.zeros((1, 2)), 1)
    assert (np.diff(found, axis=2) >= 0).all()
    np.testing.assert_allclose(found[0, :, 2], [3 + 1.2816, 3 + 2 * 1.2816], atol=0.15)
    assert 0.0 in found[0, 0]


def test_linear_model_learns_a_season_and_sees_nothing_ahead() -> None:
    target = waves(24, 1200, 0.01)
    one = prepared(target)
    train, develop = np.arange(200, one.history.develop - 3), np.arange(one.history.develop, 820)
    model = LinearModel(one, 24, train, develop)
    days = np.arange(900, 1100)
    found = model.forecast(days)
    assert np.sqrt(np.mean((found - one.future(days)) ** 2)) < 0.03
    changed = target.copy()
    changed[1000:] += 100.0
    other = LinearModel(prepared(changed), 24, train, develop).forecast(days)
    np.testing.assert_allclose(other[days < 1000], found[days < 1000], atol=1e-9)


def test_dummies_are_hour_and_weekday_of_hourly_rows() -> None:
    assert dummy_cycles(24) == [(1, 24), (24, 7)]
    assert dummy_cycles(0) == dummy_cycles(1000) == []
