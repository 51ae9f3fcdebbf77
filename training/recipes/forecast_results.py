"""What a forecaster is measured by: errors by steps ahead beside its baselines, and its false alarms."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import Anomaly, ForecastSpec
from training.data.forecasting import Prepared
from training.recipes.forecast_objective import ForecastObjective
from training.recipes.report import Contender, Measure, Results
from training.recipes.seasonal import LinearModel, errors_of, season_ago

Floats = NDArray[np.float64]
Days = NDArray[np.int64]

SMALLEST_THRESHOLD = 1e-6
NUMBER = ".4g"


def shown_steps(horizon: int) -> list[int]:
    """Return the steps ahead that the table shows: the first, a quarter of the horizon, and the last."""
    return sorted({1, max(1, horizon // 4), horizon})


def evaluate(objective: ForecastObjective, period: int) -> Results:
    """Measure the network and its baselines on the held-out part.

    The baselines are a season ago, a linear model and the last value. Their intervals, as the network's, come
    from the development part.

    Args:
        objective: the trained network, the series and the window.
        period: rows of a season; 0: there is none.
    """
    prepared = objective.prepared
    history, forecast = prepared.history, prepared.forecast
    days = np.arange(history.held_out - 1, len(history.values) - forecast.horizon)
    cell, window = objective.network.config.cell, objective.window
    found = {Contender(f"{cell}, last {window}", "held_out"): objective.quantiles(days)}
    found |= baselines(prepared, period, days)
    return Results(
        f"{forecast.target}, {len(days):,} forecasts held out"
        + (f"; a season is {period} rows" if period else "; no season was found"),
        tuple(found),
        tuple(_measures(found, prepared.future(days), forecast, max(forecast.horizon, period))),
        main="pinball",
    )


def baselines(prepared: Prepared, period: int, days: Days) -> dict[Contender, Floats]:
    """Return the forecasts of the baselines after the rows `days`: (D, horizon, levels) each."""
    history, forecast = prepared.history, prepared.forecast
    horizon, levels = forecast.horizon, forecast.quantiles
    target, median = prepared.target, levels.index(0.5)
    develop = np.arange(history.develop - 1, history.held_out - horizon)
    first = min(7 * period if period else 7, history.develop // 3)
    train = np.arange(first, history.develop - horizon)
    linear = LinearModel(prepared, period, train, develop)

    def around(known: Floats, ahead: Floats) -> Floats:
        return errors_of(prepared.future(develop), known, levels).around(ahead, median)

    found = {}
    if period:
        found[Contender("season ago", "baseline_seasonal")] = around(
            season_ago(target, develop, horizon, period), season_ago(target, days, horizon, period)
        )
    found[Contender("linear", "baseline_linear")] = around(linear.forecast(develop), linear.forecast(days))
    found[Contender("last value", "baseline_last")] = around(
        np.repeat(target[develop][:, None], horizon, axis=1),
        np.repeat(target[days][:, None], horizon, axis=1),
    )
    return found


def pinball(quantiles: Floats, future: Floats, levels: list[float]) -> Floats:
    """Return the pinball loss of each step ahead: (D, horizon, levels), (D, horizon) to (horizon,)."""
    losses: Floats = np.nanmean(_pinball(quantiles, future, levels), axis=(0, 2))
    return losses


def pinball_of_each(quantiles: Floats, future: Floats, levels: list[float]) -> Floats:
    """Return the pinball loss of each forecast: (D, horizon, levels), (D, horizon) to (D,)."""
    losses: Floats = np.nanmean(_pinball(quantiles, future, levels), axis=(1, 2))
    return losses


def _pinball(quantiles: Floats, future: Floats, levels: list[float]) -> Floats:
    error, level = future[:, :, None] - quantiles, np.array(levels)
    losses: Floats = np.maximum(level * error, (level - 1) * error)
    return losses


def _measures(
    found: Mapping[Contender, Floats], future: Floats, forecast: ForecastSpec, block: int
) -> list[Measure]:
    """Return the rows of the table.

    Args:
        found: forecasts of each contender, (D, horizon, levels).
        future: what came, (D, horizon).
        forecast: of the model.
        block: so many neighbouring forecasts share hours, or a part of the season, with each other.
    """
    levels, median = forecast.quantiles, forecast.quantiles.index(0.5)
    unit = forecast.column(forecast.target).unit
    in_unit = f", {unit}" if unit else ""
    squares = [np.nanmean((one[:, :, median] - future) ** 2, axis=0) for one in found.values()]
    losses = [pinball(one, future, levels) for one in found.values()]
    inside = [(one[:, :, 0] <= future) & (future <= one[:, :, -1]) for one in found.values()]
    share = round(100 * (levels[-1] - levels[0]))
    measures = [
        Measure(
            f"RMSE, all steps{in_unit}", "rmse", tuple(float(np.sqrt(one.mean())) for one in squares), NUMBER
        ),
        Measure(
            f"pinball loss, all steps{in_unit}",
            "pinball",
            tuple(float(one.mean()) for one in losses),
            NUMBER,
            units=tuple(pinball_of_each(one, future, levels) for one in found.values()),
            block=block,
        ),
        Measure(
            f"in {share} % interval, %", "coverage", tuple(100 * float(one.mean()) for one in inside), ".1f"
        ),
    ]
    for step in shown_steps(forecast.horizon):
        ahead, place = f"{step} ahead", step - 1
        measures += [
            Measure(
                f"RMSE, {ahead}", f"rmse_{step}", tuple(float(np.sqrt(one[place])) for one in squares), NUMBER
            ),
            Measure("  pinball loss", f"pinball_{step}", tuple(float(one[place]) for one in losses), NUMBER),
            Measure(
                "  in interval, %",
                f"coverage_{step}",
                tuple(100 * float(one[:, place].mean()) for one in inside),
                ".1f",
            ),
        ]
    return measures


def scores(quantiles: Floats, values: Floats, median: int) -> Floats:
    """Return how far values lie from their forecasts, in distances of the outer quantile on their side.

    Args:
        quantiles: of the next step, (D, levels), rising.
        values: what came, (D,).
        median: index of the median.
    """
    middle = quantiles[:, median]
    reach = np.where(values >= middle, quantiles[:, -1] - middle, middle - quantiles[:, 0])
    found: Floats = np.abs(values - middle) / np.maximum(reach, np.finfo(np.float64).tiny)
    return found


def anomaly_of(objective: ForecastObjective, rate: float) -> Anomaly:
    """Return the threshold of the score that a share `rate` of the development part's values exceeds."""
    history = objective.prepared.history
    found = one_step_scores(objective, np.arange(history.develop - 1, history.held_out - 1))
    threshold = float(np.quantile(found, 1 - rate, method="higher"))
    return Anomaly(threshold=max(threshold, SMALLEST_THRESHOLD), false_alarm_rate=rate)


def with_false_alarms(results: Results, objective: ForecastObjective, anomaly: Anomaly) -> Results:
    """Add the share of held-out values whose score exceeds the threshold."""
    history = objective.prepared.history
    found = one_step_scores(objective, np.arange(history.held_out - 1, len(history.values) - 1))
    share = 100 * float(np.mean(found > anomaly.threshold))
    none = (None,) * (len(results.contenders) - 1)
    title = f"above score {anomaly.threshold:.2f}, % ({100 * anomaly.false_alarm_rate:g} % in development)"
    measure = Measure(title, "false_alarms", (share, *none), ".2f")
    return replace(results, measures=(*results.measures, measure))


def one_step_scores(objective: ForecastObjective, days: Days) -> Floats:
    """Return the scores of the values after the rows, (D,)."""
    prepared = objective.prepared
    median = prepared.forecast.quantiles.index(0.5)
    return scores(objective.quantiles(days)[:, 0], prepared.future(days)[:, 0], median)
