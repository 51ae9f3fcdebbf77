"""The forecaster: no look ahead, honest measures, and the recipe from end to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.contract import spec
from tests.training.conftest import GOOG_TABLE, Command, made_up
from training.data.series import History, describe
from training.loop.fit import build_network
from training.networks.network import NetworkConfig
from training.recipes.stock import ForecastObjective, Windows, calibrate, evaluate, examples, window_outputs


def test_nothing_after_the_development_part_changes_scales_or_losses() -> None:
    """A leak would make a forecast look better than it is."""
    history, _ = made_up(200)
    other = History(history.values.copy(), history.develop, history.held_out)
    other.values[history.held_out :] *= 3
    assert describe(other, GOOG_TABLE) == describe(history, GOOG_TABLE)
    assert _losses(other) == _losses(history)


def test_development_part_is_not_trained_on() -> None:
    history, forecast = made_up(200)
    other = History(history.values.copy(), history.develop, history.held_out)
    other.values[history.develop :] *= 3
    assert describe(other, GOOG_TABLE) == forecast
    assert _losses(other)[:-1] == _losses(history)[:-1]
    assert _losses(other)[-1] != _losses(history)[-1]


def test_forecasts_of_a_day_are_the_same_whatever_comes_after_it() -> None:
    history, forecast = made_up(200)
    network = build_network(NetworkConfig("gru", 1, 8, 15, features=5), 0, "cpu").eval()
    generator = np.random.default_rng(0)
    days = np.arange(history.held_out, len(history.values), 5)
    for length in (7, 64):
        windows = Windows(days, np.full(len(days), length))
        with torch.no_grad():
            expected = window_outputs(network, history, forecast, windows, "cpu")
            for row, day in enumerate(days):
                shuffled = history.values.copy()
                generator.shuffle(shuffled[day + 1 :])
                one = Windows(days[row : row + 1], windows.lengths[row : row + 1])
                found = window_outputs(network, replace(history, values=shuffled), forecast, one, "cpu")
                torch.testing.assert_close(found[0], expected[row], atol=1e-6, rtol=0)


def test_calibration_holds_the_development_part_and_looks_at_nothing_after_it() -> None:
    history, forecast = made_up(1000)
    other = History(history.values.copy(), history.develop, history.held_out)
    other.values[history.held_out :] *= 3
    factors = []
    for one in (history, other):
        network = build_network(NetworkConfig("gru", 1, 8, 15, features=5), 0, "cpu").eval()
        with torch.no_grad():
            network.head.get_parameter("weight").zero_()
            network.head.get_parameter("bias").copy_(torch.tensor([-1.0, 0.0, 1.0] * 5))
        objective = ForecastObjective(network, one, forecast, "cpu")
        factors.append(calibrate(network, objective))
        reach = float(network.head.get_parameter("bias").detach()[2])
        assert reach == pytest.approx(factors[-1])
        assert (np.abs(objective.targets[objective.develop_days]) <= reach).mean() == pytest.approx(
            0.8, abs=0.01
        )
    assert factors[0] == factors[1]


def _losses(history: History) -> list[float]:
    """Of the batches of one epoch, and of the development part."""
    network = build_network(NetworkConfig("gru", 1, 8, 15, features=5), 0, "cpu").eval()
    objective = ForecastObjective(network, history, describe(history, GOOG_TABLE), "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        return [*(float(loss) for loss in objective.losses(0)), objective.develop()]


def test_zero_output_forecasts_the_last_value() -> None:
    history, forecast = made_up()
    network = build_network(NetworkConfig("lstm", 1, 4, 15, features=5), 0, "cpu").eval()
    with torch.no_grad():
        network.head.get_parameter("weight").zero_()
        network.head.get_parameter("bias").zero_()
    metrics = evaluate(network, history, forecast, "cpu").metrics()
    assert metrics["held_out_7_rmse_next"] == pytest.approx(metrics["baseline_last_rmse_next"])
    assert metrics["held_out_64_width"] == 0


def test_quantiles_that_cross_are_put_in_order() -> None:
    history, forecast = made_up()
    network = build_network(NetworkConfig("lstm", 1, 4, 15, features=5), 0, "cpu").eval()
    with torch.no_grad():
        network.head.get_parameter("weight").zero_()
        network.head.get_parameter("bias").copy_(torch.tensor([1.0, 0.0, -1.0] * 5))
    assert evaluate(network, history, forecast, "cpu").metrics()["held_out_7_width"] > 0


def test_constant_interval_covers_about_four_fifths_of_a_steady_random_walk() -> None:
    """Standard error of the coverage about 2 %, with overlapping changes about 4 %."""
    history, forecast = made_up(2000)
    network = build_network(NetworkConfig("lstm", 1, 4, 15, features=5), 0, "cpu").eval()
    assert evaluate(network, history, forecast, "cpu").metrics()[
        "baseline_constant_coverage"
    ] == pytest.approx(80, abs=8)


def test_examples_are_windows_of_mixed_lengths() -> None:
    history, forecast = made_up()
    assert [len(window) for window in examples(history, forecast, 0)] == [1, 7, 8, 20, 41, 64]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_own_prices_are_trained_measured_and_exported(
    command: Command, prices_file: Path, tmp_path: Path, cell: str
) -> None:
    chosen = ("--columns", "close,volume", "--target", "close", "--date-column", "date")
    assert (
        command(
            "stock",
            "--csv",
            prices_file,
            *chosen,
            "--hidden",
            4,
            "--epochs",
            2,
            "--cell",
            cell,
            "--name",
            "own",
        )
        == 0
    )
    model, _ = spec.read_spec(tmp_path / "exported" / "own" / "1")
    assert model.forecasting is not None
    assert [column.name for column in model.forecasting.columns] == ["close", "volume"]
    assert (model.forecasting.horizon, model.forecasting.quantiles, model.forecasting.least_observations) == (
        5,
        [0.1, 0.5, 0.9],
        7,
    )
    assert {
        "held_out_7_rmse_next_ratio",
        "held_out_64_pinball",
        "held_out_64_coverage",
        "baseline_constant_pinball",
    } <= set(model.metrics)
