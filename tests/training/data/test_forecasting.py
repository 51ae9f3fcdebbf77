"""training.data.forecasting: the description, the features and the targets of a series."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract.spec import CYCLES, Column, ColumnLevel, ForecastSpec
from service.tasks.feature_transform import FeatureTransform
from training.data.forecasting import (
    Choice,
    Transform,
    can_take_logarithms,
    check_horizon,
    describe_forecast,
    prepare,
)
from training.data.series import History, Table, choose, features_of, split
from training.data.sources import own_data
from training.errors import TrainingError

ROWS = 400
CHOICE = Choice(
    horizon=4,
    quantiles=(0.1, 0.5, 0.9),
    window=16,
    transform="none",
    has_levels=True,
    cycles=(),
    has_lags=False,
)


def walk(seed: int = 0, columns: int = 2) -> History:
    """A random walk above 0 for each column."""
    steps = np.random.default_rng(seed).normal(0, 0.02, (ROWS, columns))
    return split(50 * np.exp(np.cumsum(steps, axis=0)))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """The columns x, the target, and y."""
    (tmp_path / "own.csv").write_text("date,x,y\n")
    return choose(own_data(tmp_path / "own.csv"), ["x", "y"], "x", None, "date")


def test_scales_and_means_are_those_of_the_training_part_alone(table: Table) -> None:
    history = walk()
    changed = replace(history, values=history.values.copy())
    changed.values[history.develop :] *= 5
    assert describe_forecast(history, table, CHOICE) == describe_forecast(changed, table, CHOICE)
    column = describe_forecast(history, table, CHOICE).columns[0]
    training = history.values[: history.develop, 0]
    assert column.level == ColumnLevel(mean=float(training.mean()), scale=float(training.std()))
    assert column.scale == pytest.approx(np.diff(training).std())


def test_scale_of_a_step_is_the_deviation_of_so_many_steps(table: Table) -> None:
    history = walk()
    target = history.values[: history.develop, 0]
    expected = [np.std(target[step:] - target[:-step]) for step in range(1, 5)]
    assert describe_forecast(history, table, CHOICE).scales == pytest.approx(expected)


def test_prepared_targets_lead_back_to_what_came(table: Table) -> None:
    for transform in ("none", "log"):
        history = walk()
        one = prepare(history, describe_forecast(history, table, replace(CHOICE, transform=transform)))
        days = np.arange(100, 200)
        outputs = np.repeat(one.targets[days].astype(np.float64)[:, :, None], 3, axis=2)
        for level in range(3):
            np.testing.assert_allclose(one.values(days, outputs)[:, :, level], one.future(days), rtol=1e-5)


def test_values_of_crossing_quantiles_rise(table: Table) -> None:
    one = prepare(walk(), describe_forecast(walk(), table, CHOICE))
    outputs = np.broadcast_to(np.array([0.3, 0.0, -0.3]), (5, 4, 3))
    assert (np.diff(one.values(np.arange(100, 105), outputs), axis=2) > 0).all()


def test_future_past_the_end_is_no_number(table: Table) -> None:
    one = prepare(walk(), describe_forecast(walk(), table, CHOICE))
    assert np.isnan(one.future(np.array([ROWS - 2]))).tolist() == [[False, True, True, True]]


def test_windows_are_what_the_network_sees_of_their_rows_alone(table: Table) -> None:
    one = prepare(walk(), describe_forecast(walk(), table, CHOICE))
    features, lengths = one.windows(np.array([3, 50, 399]), 16)
    assert lengths.tolist() == [4, 16, 16]
    for found, length, day in zip(features, lengths, (3, 50, 399), strict=True):
        rows = one.history.values[day + 1 - length : day + 1]
        np.testing.assert_array_equal(found[:length], features_of(rows, one.forecast))


@pytest.mark.parametrize(("has_levels", "expected"), [(True, 1), (False, -1)])
def test_level_of_the_target_has_its_place(table: Table, has_levels: bool, expected: int) -> None:
    choice = replace(CHOICE, has_levels=has_levels)
    assert prepare(walk(), describe_forecast(walk(), table, choice)).target_level == expected


def test_logarithms_are_for_targets_above_zero_in_every_part(table: Table) -> None:
    history = walk()
    assert can_take_logarithms(history, table)
    history.values[-1, 0] = 0.0
    assert not can_take_logarithms(history, table)


def test_column_with_zeros_beside_a_logarithmic_target_keeps_its_values(table: Table) -> None:
    history = walk()
    history.values[5, 1] = 0.0
    forecast = describe_forecast(history, table, replace(CHOICE, transform="log"))
    assert [column.transform for column in forecast.columns] == ["log", "none"]


@pytest.mark.parametrize("horizon", [31, 1000])
def test_horizon_beyond_the_rows_is_refused_with_the_longest(horizon: int) -> None:
    with pytest.raises(TrainingError, match=rf"--horizon: expected 1\.\.21 steps .* found {horizon}"):
        check_horizon(horizon, walk())


def test_column_that_never_changes_is_refused_by_its_name(table: Table) -> None:
    history = walk()
    history.values[: history.develop, 1] = 3.0
    with pytest.raises(TrainingError, match="column y: expected values that change"):
        describe_forecast(history, table, CHOICE)


def test_target_of_one_change_a_step_is_refused(table: Table) -> None:
    """A season of the horizon's length is no change over so many steps."""
    history = walk()
    history.values[:, 0] = np.arange(ROWS) % 4
    with pytest.raises(TrainingError, match=r"column x: .* found one change over 4 steps everywhere"):
        describe_forecast(history, table, CHOICE)


def test_feature_beyond_all_numbers_is_refused_with_its_row(table: Table) -> None:
    history = walk()
    forecast = describe_forecast(history, table, CHOICE)
    history.values[-3, 1] = 1e300
    with pytest.raises(TrainingError, match=f"observation {ROWS - 2}: expected values of the size"):
        prepare(history, forecast)


@st.composite
def specs(draw: st.DrawFn) -> ForecastSpec:
    """Columns of any transforms, references and levels, and maybe a calendar somewhere among them."""
    count = draw(st.integers(1, 4))
    kinds: list[Transform] = [draw(st.sampled_from(get_args(Transform))) for _ in range(count)]
    scales = st.floats(0.01, 10)
    columns = [
        Column(
            name=f"c{index}",
            unit="",
            transform=kind,
            reference=f"c{draw(st.sampled_from([at for at in range(count) if kinds[at] == kind]))}",
            scale=draw(scales),
            level=draw(
                st.none()
                | st.builds(lambda mean, scale: ColumnLevel(mean=mean, scale=scale), st.floats(-5, 5), scales)
            ),
        )
        for index, kind in enumerate(kinds)
    ]
    cycles = draw(st.lists(st.sampled_from(list(CYCLES)), unique=True, max_size=3))
    if cycles:
        dates = Column(name="date", unit="", transform="none", reference="date", scale=1.0, calendar=cycles)
        columns.insert(draw(st.integers(0, count)), dates)
    return ForecastSpec(
        columns=columns, target="c0", horizon=1, quantiles=[0.5], scales=[1.0], least_observations=1
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(specs(), st.integers(1, 12), st.integers(0, 2**31), st.data())
def test_service_computes_the_features_of_training(
    forecast: ForecastSpec, rows: int, seed: int, data: st.DataObject
) -> None:
    """Whole, and from a cut on, where the service starts with the levels before it."""
    generator = np.random.default_rng(seed)
    values = generator.uniform(0.1, 10, (rows, len(forecast.columns)))
    for index, column in enumerate(forecast.columns):
        if column.calendar is not None:
            values[:, index] = generator.uniform(-1e9, 4e9) + 3600 * np.arange(rows)
    transform = FeatureTransform(forecast)
    levels = transform.levels(values)
    found = transform.features(levels, [0])
    assert found.shape == (rows, forecast.num_features)
    np.testing.assert_allclose(found, features_of(values, forecast), rtol=1e-5, atol=1e-5)
    cut = data.draw(st.integers(1, rows), label="cut")
    if cut < rows:
        rest = transform.features(np.ascontiguousarray(levels[cut:]), [0], levels[cut - 1].tolist())
        np.testing.assert_array_equal(rest, found[cut:])
