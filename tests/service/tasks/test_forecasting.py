"""service.tasks.forecasting."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.contract import spec
from service.engine.request import ANYONE
from service.errors import InvalidArgument
from service.tasks.forecasting import Forecast, ForecastingTask, Observations
from tests.service.builders import LIMITS
from tests.service.tasks.forecasters import MIXED, PLAIN, QUANTILES, SCALES, AtOnce, ConstantCell
from training.data import series as training_series
from training.data.sources import GOOG

Series = Sequence[Sequence[float]]


async def forecast(
    described: spec.ForecastSpec,
    output: Sequence[float],
    series: Sequence[Observations],
    horizon: int = 0,
    levels: Sequence[float] = (),
) -> list[Forecast]:
    """Forecast with a network whose output is given."""
    return await task_of(described, output).forecast(series, horizon, levels, ANYONE)


def task_of(described: spec.ForecastSpec, output: Sequence[float] = ()) -> ForecastingTask:
    columns = len(described.columns)
    outputs = output or [0.0] * described.horizon * len(described.quantiles)
    engine = AtOnce(ConstantCell(outputs), columns, len(outputs))
    return ForecastingTask(described, engine, LIMITS)


def slow_features(observations: Series, described: spec.ForecastSpec) -> list[list[float]]:
    """Apply the formula of spec.Column, one number at a time."""
    names = [one.name for one in described.columns]
    rows = []
    for step, values in enumerate(observations):
        before = observations[max(0, step - 1)]
        row = []
        for one, value in zip(described.columns, values, strict=True):
            past = before[names.index(one.reference)]
            change = math.log(value) - math.log(past) if one.transform == "log" else value - past
            row.append(change / one.scale)
        rows.append(row)
    return rows


prices = st.floats(0.01, 1e5)
observations_of_mixed = st.lists(st.tuples(prices, prices, st.floats(-1e3, 1e3)), min_size=1, max_size=20)
GOOD: Series = [[11.0, 10.0, -1.0], [13.0, 12.0, 0.0], [14.0, 13.0, 5.0]]
STEPS = [-1.0, 0.0, 1.0] * 3


# Features.


@given(observations_of_mixed)
def test_features_equal_a_slow_reference(observations: Series) -> None:
    found = task_of(MIXED).features(np.array(observations))
    np.testing.assert_allclose(found, slow_features(observations, MIXED), rtol=1e-5, atol=1e-4)


@given(observations_of_mixed)
def test_features_equal_those_that_training_computes(observations: Series) -> None:
    array = np.array(observations)
    np.testing.assert_array_equal(task_of(MIXED).features(array), training_series.features_of(array, MIXED))


def test_features_of_the_shipped_data_equal_those_that_training_computes() -> None:
    table = training_series.choose(GOOG, ("open", "high", "low", "close", "volume"), "close", None, "")
    history = training_series.split(training_series.read_values(table))
    described = training_series.describe(history, table)
    task = task_of(described)
    np.testing.assert_array_equal(
        task.features(history.values), training_series.features_of(history.values, described)
    )


def test_first_observation_stands_in_for_its_own_predecessor() -> None:
    [first] = task_of(MIXED).features(np.array([[20.0, 10.0, 7.0]]))
    np.testing.assert_allclose(first, [math.log(2.0) / 0.02, 0.0, 0.0], rtol=1e-6)


def test_features_are_float32_one_row_an_observation() -> None:
    features = task_of(MIXED).features(np.array(GOOD))
    assert features.dtype == np.float32
    assert features.shape == (3, 3)


@given(observations_of_mixed, st.integers(1, 20))
def test_features_of_a_step_know_nothing_of_later_ones(observations: Series, count: int) -> None:
    whole = task_of(MIXED).features(np.array(observations))
    part = task_of(MIXED).features(np.array(observations[:count]))
    np.testing.assert_array_equal(part, whole[:count])


# Forecasts.


async def test_log_target_moves_by_a_factor() -> None:
    [found] = await forecast(MIXED, STEPS, [GOOD])
    right = [[13.0 * math.exp(change * scale) for change in (-1, 0, 1)] for scale in SCALES]
    np.testing.assert_allclose(found.quantiles, right, rtol=1e-12)


async def test_plain_target_moves_by_a_sum() -> None:
    [found] = await forecast(PLAIN, STEPS, [[[1.0], [-4.0]]])
    np.testing.assert_allclose(
        found.quantiles, [[-4.0 + change * scale for change in (-1, 0, 1)] for scale in SCALES], rtol=1e-12
    )


async def test_zero_output_is_the_last_value() -> None:
    [found] = await forecast(MIXED, [0.0] * 9, [GOOD])
    np.testing.assert_allclose(found.medians, 13.0, rtol=1e-12)
    assert found.last_value == 13.0


@pytest.mark.parametrize(("horizon", "steps"), [(0, 3), (1, 1), (2, 2), (3, 3)])
async def test_horizon_counts_the_steps_ahead(horizon: int, steps: int) -> None:
    [found] = await forecast(MIXED, STEPS, [GOOD], horizon)
    assert (len(found.medians), len(found.quantiles)) == (steps, steps)


@pytest.mark.parametrize("levels", [[0.9, 0.1], [0.5], [0.1, 0.5, 0.9], [0.5, 0.5]])
async def test_quantiles_come_in_the_order_asked_for(levels: list[float]) -> None:
    [whole] = await forecast(MIXED, STEPS, [GOOD])
    [found] = await forecast(MIXED, STEPS, [GOOD], 0, levels)
    assert found.selection.levels == levels
    np.testing.assert_array_equal(
        found.quantiles, whole.quantiles[:, [QUANTILES.index(level) for level in levels]]
    )


async def test_all_quantiles_come_when_none_is_named() -> None:
    [found] = await forecast(MIXED, STEPS, [GOOD])
    assert found.selection.levels == QUANTILES


async def test_crossing_quantiles_are_put_in_order() -> None:
    [crossed] = await forecast(MIXED, [1.0, -1.0, 0.0] * 3, [GOOD])
    [straight] = await forecast(MIXED, STEPS, [GOOD])
    np.testing.assert_array_equal(crossed.quantiles, straight.quantiles)
    np.testing.assert_array_equal(crossed.medians, straight.medians)


async def test_median_lies_between_the_outer_quantiles() -> None:
    [found] = await forecast(MIXED, [2.0, -1.0, 0.5] * 3, [GOOD])
    assert (found.quantiles[:, 0] <= found.medians).all()
    assert (found.medians <= found.quantiles[:, -1]).all()


async def test_each_series_is_forecast_on_its_own() -> None:
    series: list[Series] = [GOOD, [[1.0, 2.0, 3.0]] * 7]
    together = await forecast(MIXED, STEPS, series)
    for one, found in zip(series, together, strict=True):
        [alone] = await forecast(MIXED, STEPS, [one])
        np.testing.assert_array_equal(found.quantiles, alone.quantiles)
        assert found.last_value == one[-1][1]


# Refusals.


def with_value(value: float, step: int = 1, place: int = 1) -> NDArray[np.float64]:
    array = np.array(GOOD)
    array[step, place] = value
    return array


@pytest.mark.parametrize(
    ("series", "field", "found"),
    [
        pytest.param([], "series", "expected at least 1 series, found 0", id="no series"),
        pytest.param([GOOD] * 9, "series", "expected at most 8 series, found 9", id="too many series"),
        pytest.param(
            [GOOD, []],
            "series[1].observations",
            "expected at least 2 observations, found 0",
            id="no observation",
        ),
        pytest.param(
            [GOOD[:1]],
            "series[0].observations",
            "expected at least 2 observations, found 1",
            id="too few observations",
        ),
        pytest.param(
            [list(GOOD) * 20],
            "series[0].observations",
            "expected at most 50 observations, found 60",
            id="too many observations",
        ),
        pytest.param(
            [[GOOD[0], [1.0, 2.0]]],
            "series[0].observations[1].values",
            "expected 3 values (high, close, mood), found 2",
            id="too few values",
        ),
        pytest.param(
            [[GOOD[0], [1.0] * 4]], "series[0].observations[1].values", "found 4", id="too many values"
        ),
        pytest.param(
            [with_value(math.nan)],
            "series[0].observations[1].values[1]",
            "finite number above 0 for close, found nan",
            id="NaN",
        ),
        pytest.param(
            [with_value(math.inf)], "series[0].observations[1].values[1]", "found inf", id="infinity"
        ),
        pytest.param(
            [with_value(-math.inf, 0, 2)],
            "series[0].observations[0].values[2]",
            "a finite number for mood, found -inf",
            id="minus infinity",
        ),
        pytest.param(
            [with_value(0.0)], "series[0].observations[1].values[1]", "found 0.0", id="zero under a logarithm"
        ),
        pytest.param(
            [with_value(-2.0)],
            "series[0].observations[1].values[1]",
            "found -2.0",
            id="negative under a logarithm",
        ),
        pytest.param(
            [with_value(1e300, 1, 2)],
            "series[0].observations[1].values[2]",
            "that 32 bits can hold, found 1e+300",
            id="too large a change",
        ),
    ],
)
async def test_wrong_series_names_its_place(series: list[Any], field: str, found: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await forecast(MIXED, STEPS, series)
    assert refusal.value.violations[0].field == field
    assert found in str(refusal.value)


@pytest.mark.parametrize("value", [0.0, -5.0])
async def test_zero_and_negative_values_are_fine_without_a_logarithm(value: float) -> None:
    [found] = await forecast(MIXED, STEPS, [with_value(value, 1, 2).tolist()])
    assert np.isfinite(found.quantiles).all()


async def test_change_between_opposite_extremes_is_refused() -> None:
    with pytest.raises(
        InvalidArgument,
        match=r"series\[0\].observations\[1\].values\[0\]: expected a change that 32 bits can hold",
    ):
        await forecast(PLAIN, STEPS, [[[-1.7e308], [1.7e308]]])


async def test_horizon_beyond_the_model_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"horizon: expected 1..3 steps, or 0 for all, found 4"):
        await forecast(MIXED, STEPS, [GOOD], 4)


@pytest.mark.parametrize("level", [0.25, 0.0, 1.0, -0.5, math.nan])
async def test_unknown_quantile_is_named(level: float) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"quantiles: expected levels among \[0.1, 0.5, 0.9\], found \[{level}\]"
    ):
        await forecast(MIXED, STEPS, [GOOD], 0, [0.5, level])


async def test_more_quantiles_than_the_model_has_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="quantiles: expected at most 3 levels, found 4"):
        await forecast(MIXED, STEPS, [GOOD], 0, [0.5] * 4)


async def test_arrays_are_forecast_as_the_lists_that_they_hold() -> None:
    series = [GOOD, GOOD[:2], GOOD[1:]]
    arrays = [np.array(one) for one in series]
    assert str(await forecast(MIXED, STEPS, arrays)) == str(await forecast(MIXED, STEPS, series))


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        pytest.param(GOOD[:1], "series[1].observations", id="too short"),
        pytest.param([*GOOD, [math.nan, 1.0, 1.0]], "series[1].observations[3].values[0]", id="not a number"),
    ],
)
async def test_wrong_array_names_its_place(rows: Series, field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await forecast(MIXED, STEPS, [np.array(GOOD), np.array(rows)])
    assert refusal.value.violations[0].field == field


async def test_forecast_that_overflows_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match="expected a last value that leaves room for its forecast, found 1e"
    ):
        await forecast(MIXED, [1000.0] * 9, [[[1e300, 1e300, 0.0]] * 2])


async def test_values_near_the_limits_of_double_precision_are_forecast() -> None:
    [found] = await forecast(MIXED, STEPS, [[[1e300, 1e300, 0.0], [1e-300, 1e-300, 0.0]]])
    assert (found.quantiles > 0).all()
