"""The recipe `forecast`: what it sees, its start, its baselines, and a run from end to end."""

from pathlib import Path

import numpy as np
import pytest
import torch

from service.contract import spec
from service.tasks.feature_transform import FeatureTransform
from tests.training.conftest import Command
from training.data.calendar import chosen_cycles
from training.data.forecasting import Choice, Prepared, describe_forecast, parse_quantiles, prepare
from training.data.series import choose, features_of, split
from training.data.sources import own_data
from training.errors import TrainingError
from training.export.chunks import ChunkCell
from training.export.export import largest_error
from training.export.graph import build_graph
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes.forecast_objective import ForecastObjective, start_linear
from training.recipes.seasonal import find_period, season_ago

HOUR = 3_600_000_000
MOMENTS = np.arange(600) * HOUR


def seasonal(rows: int = 600, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.1, rows)
    return 20 + 5 * np.sin(2 * np.pi * np.arange(rows) / 24) + noise


def prepared(tmp_path: Path, *, has_lags: bool = True, values: np.ndarray | None = None) -> Prepared:
    (tmp_path / "own.csv").write_text("date,x\n")
    table = choose(own_data(tmp_path / "own.csv"), ["x"], "x", None, "date")
    series = seasonal() if values is None else values
    history = split(np.column_stack([series, MOMENTS / 1e6]))
    choice = Choice(6, (0.1, 0.5, 0.9), 48, "none", True, ("hour",), has_lags)
    return prepare(history, describe_forecast(history, table, choice))


def network(one: Prepared) -> object:
    config = NetworkConfig(
        "gru", 1, 8, 18, features=one.forecast.num_features, lags=48, lag_feature=one.target_level
    )
    return build_network(config, 0, "cpu").eval()


def test_service_and_training_compute_the_same_features(tmp_path: Path) -> None:
    one = prepared(tmp_path)
    transform = FeatureTransform(one.forecast)
    found = transform.features(transform.levels(one.history.values), [0])
    np.testing.assert_allclose(found, features_of(one.history.values, one.forecast), atol=1e-5)
    assert found.shape == (600, one.forecast.num_features) == (600, 4)


def test_features_that_go_on_are_those_of_the_whole_series_bit_for_bit(tmp_path: Path) -> None:
    one = prepared(tmp_path)
    transform = FeatureTransform(one.forecast)
    levels = transform.levels(one.history.values)
    whole = transform.features(levels, [0])
    for cut in (1, 2, 3, 7, 50, 599):
        rest = transform.features(np.ascontiguousarray(levels[cut:]), [0], levels[cut - 1].tolist())
        np.testing.assert_array_equal(rest, whole[cut:])


def test_graph_with_lags_computes_what_pytorch_does_in_any_chunks(tmp_path: Path) -> None:
    one = prepared(tmp_path)
    made = network(one)
    start_linear(made, one, np.arange(360, 410))  # type: ignore[arg-type]
    examples = [torch.from_numpy(one.features[:length]) for length in (1, 5, 48, 130)]
    cell = ChunkCell(build_graph(made).SerializeToString())  # type: ignore[arg-type]
    assert largest_error(cell, made, examples) < 1e-4  # type: ignore[arg-type]


def test_linear_start_is_far_better_than_a_random_one(tmp_path: Path) -> None:
    one = prepared(tmp_path)
    made = network(one)
    objective = ForecastObjective(made, one, 48, "cpu")  # type: ignore[arg-type]
    before = objective.develop()
    start_linear(made, one, objective.develop_days)  # type: ignore[arg-type]
    assert objective.develop() < before / 4


def test_nothing_after_the_development_part_changes_losses(tmp_path: Path) -> None:
    values = seasonal()
    other = values.copy()
    other[420:] *= 3
    losses = []
    for series in (values, other):
        one = prepared(tmp_path, values=series)
        objective = ForecastObjective(network(one), one, 48, "cpu")  # type: ignore[arg-type]
        torch.manual_seed(0)
        losses.append([*(float(loss.detach()) for loss in objective.losses(0)), objective.develop()])
    assert losses[0] == losses[1]


def test_period_is_found_and_noise_has_none() -> None:
    assert find_period(seasonal()) == 24
    assert find_period(np.random.default_rng(1).normal(size=600).cumsum()) == 0


def test_season_ago_is_the_newest_known_value_of_the_same_place() -> None:
    found = season_ago(np.arange(100.0), np.array([50]), 5, 3)
    assert found.tolist() == [[48.0, 49.0, 50.0, 48.0, 49.0]]


def test_cycles_are_those_that_the_rows_can_show() -> None:
    assert chosen_cycles("auto", MOMENTS, 400) == ("hour", "weekday")
    assert chosen_cycles("auto", MOMENTS * 24, 400) == ("weekday",)
    assert chosen_cycles("auto", np.zeros(0, np.int64), 400) == ()
    with pytest.raises(TrainingError, match="--calendar: expected"):
        chosen_cycles("hours", MOMENTS, 400)


@pytest.mark.parametrize("option", ["0.1,0.9", "0.5", "0.9,0.5,0.1", "x", "0.1,0.5,1"])
def test_wrong_quantiles_are_refused(option: str) -> None:
    with pytest.raises(TrainingError, match="--quantiles: expected"):
        parse_quantiles(option)


def test_recipe_runs_from_end_to_end(command: Command, tmp_path: Path) -> None:
    dates = np.datetime64("2024-01-01T00:00") + np.arange(600) * np.timedelta64(1, "h")
    rows = "\n".join(f"{date},{value:.4f}" for date, value in zip(dates, seasonal(), strict=True))
    (tmp_path / "own.csv").write_text(f"date,x\n{rows}\n")
    options = ("--target", "x", "--horizon", "6", "--window", "48", "--epochs", "2", "--hidden", "8")
    assert command("forecast", "own.csv", *options, "--repository", str(tmp_path / "models")) == 0
    model, _ = spec.read_spec(tmp_path / "models/own/1")
    assert model.forecasting is not None
    assert model.forecasting.horizon == 6
    assert model.forecasting.calendar == "date"
    assert model.forecasting.anomaly is not None
    assert model.metrics["held_out_pinball"] < model.metrics["baseline_last_pinball"]
    assert model.golden[0].values
