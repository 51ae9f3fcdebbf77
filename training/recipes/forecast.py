"""Forecasting a series of any spacing: quantiles of the target in each of the next steps.

The network sees the change and the level of each column and the calendar, all known when it forecasts. Its
head sees the last values of the target, too, and starts as the linear model on them: a season is not left to
the recurrence to remember. Outputs are changes from the last value, in units of such changes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from service.contract.spec import Anomaly
from training import markdown
from training.data.calendar import AUTO, chosen_cycles
from training.data.forecasting import (
    FEWEST_OBSERVATIONS,
    Choice,
    Prepared,
    Transform,
    can_take_logarithms,
    check_horizon,
    describe_forecast,
    prepare,
    with_calendar,
)
from training.data.series import Series, Table, features_of, read_series
from training.data.unchanged import Taken, take
from training.errors import TrainingError
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.networks.network import RecurrentNetwork
from training.recipes.forecast_objective import ForecastObjective, calibrate, start_linear
from training.recipes.forecast_results import anomaly_of, evaluate, pinball, with_false_alarms
from training.recipes.report import Results
from training.recipes.run import Outcome, RunOptions, deliver, say, use_one_thread
from training.recipes.seasonal import chosen_period
from training.recipes.stock import RECENT_FILE
from training.writing import write_whole

DROPOUT = 0.1
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
# Without a season.
USUAL_WINDOW, USUAL_HORIZON = 64, 5
SEASONS_A_WINDOW = 7
MAX_WINDOW, MAX_LAGS, MAX_USUAL_HORIZON = 336, 400, 48
# Of the training part, at most so much is a window.
WINDOWS_IN_TRAINING = 3
# A candidate is trained for this share of the epochs before it is chosen or dropped.
BRIEF_SHARE = 6
FEWEST_EPOCHS = 2
NUM_EXAMPLES = 4
# Rows of the longest golden example: model.json holds it as values and as features.
MAX_EXAMPLE = 96


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """What the user chose; 0 and auto: found in the data.

    Attributes:
        horizon: steps ahead; 0: a season, or a few.
        quantiles: levels in ascending order, 0.5 among them.
        transform: log, none, or auto: what does better on the development part.
        window: rows that the network is trained to look back over; 0: a few seasons.
        calendar: auto, none, or cycles with commas between them.
        period: rows of a season; 0: found.
        anomaly: share of ordinary values that are marked as anomalies.
    """

    horizon: int = 0
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    transform: str = AUTO
    window: int = 0
    calendar: str = AUTO
    period: int = 0
    anomaly: float = 0.01


def train(options: RunOptions, table: Table, wanted: ForecastOptions) -> Path:
    """Run the whole recipe.

    Returns:
        The folder exported to.

    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    use_one_thread()
    taken = take(table.source)
    series = read_series(table)
    taken.check_after_reading()
    for note in series.notes:
        say(note)
    target = series.history.values[: series.history.develop, table.columns.index(table.target)]
    period = chosen_period(wanted.period, target)
    say(f"season: {period} rows" if period else "season: none found; --period gives one")
    run = _Run(options, table, series, period, {"sha256": taken.sha256, **table.choice()})
    choice = run.choose(wanted)
    objective = run.trained(choice, options.epochs, options.folder)
    parallel.share().dismiss_followers()
    recent = options.folder / RECENT_FILE
    write_whole(recent, series.recent(table, choice.window).encode())
    calibrate(objective)
    anomaly = anomaly_of(objective, wanted.anomaly)
    results = with_false_alarms(evaluate(objective, period), objective, anomaly)
    outcome = _outcome(objective, results, anomaly, taken, table, choice)
    return deliver(options, replace(outcome, call=("forecast", "--file", str(recent))))


class _Run:
    """One series with the options of a run: describes it, builds networks and trains them."""

    def __init__(
        self, options: RunOptions, table: Table, series: Series, period: int, data: dict[str, str]
    ) -> None:
        self.options = options
        self.table = table
        self.series = series
        self.period = period
        self.data = data

    def choose(self, wanted: ForecastOptions) -> Choice:
        """Settle what the user left open: from the rows, or by training each candidate briefly."""
        history, period = self.series.history, self.period
        horizon = wanted.horizon or (period if 1 < period <= MAX_USUAL_HORIZON else USUAL_HORIZON)
        check_horizon(horizon, history)
        most = max(FEWEST_OBSERVATIONS, history.develop // WINDOWS_IN_TRAINING)
        usual = min(max(USUAL_WINDOW, SEASONS_A_WINDOW * period), MAX_WINDOW)
        if wanted.window and not FEWEST_OBSERVATIONS <= wanted.window <= most:
            raise TrainingError(
                f"--window: expected {FEWEST_OBSERVATIONS}..{most} rows, a third of the training part, "
                f"found {wanted.window}"
            )
        cycles = chosen_cycles(wanted.calendar, self.series.moments, history.develop)
        say(f"calendar: {', '.join(cycles) or 'none'}; horizon: {horizon} rows")
        transforms = self._transforms(wanted.transform)
        window = wanted.window or min(usual, most)
        has_lags = 0 < period <= window <= MAX_LAGS
        candidates = [
            Choice(horizon, wanted.quantiles, window, transform, has_levels, cycles, has_lags)
            for transform in transforms
            for has_levels in ((True,) if period else (True, False))
        ]
        return candidates[0] if len(candidates) == 1 else self._best(candidates)

    def _transforms(self, wanted: str) -> tuple[Transform, ...]:
        is_positive = can_take_logarithms(self.series.history, self.table)
        if wanted == "log" and not is_positive:
            raise TrainingError(
                f"--transform log: expected {self.table.target} and the columns in its unit above 0 "
                "in every row, found others"
            )
        if wanted == AUTO:
            return ("log", "none") if is_positive else ("none",)
        return ("log",) if wanted == "log" else ("none",)

    def _best(self, candidates: list[Choice]) -> Choice:
        """Train each candidate briefly, and return the one with the least loss on the development part."""
        epochs = max(FEWEST_EPOCHS, self.options.epochs // BRIEF_SHARE)
        losses = []
        for choice in candidates:
            named = f"transform {choice.transform}, {'with' if choice.has_levels else 'without'} levels"
            folder = self.options.folder / f"{choice.transform}-{'level' if choice.has_levels else 'change'}"
            objective = self.trained(choice, epochs, folder)
            days, prepared = objective.develop_days, objective.prepared
            by_step = pinball(objective.quantiles(days), prepared.future(days), list(choice.quantiles))
            losses.append(float(by_step.mean()))
            say(f"{named}: development pinball loss {losses[-1]:.4g} after {epochs} epochs")
        # Every process takes the leader's choice: losses may differ in the last bit.
        best = parallel.share().from_leader(lambda: int(np.argmin(losses)))
        chosen = candidates[best]
        levels = "" if self.period else f", {'with' if chosen.has_levels else 'without'} levels"
        say(f"chosen on the development part: transform {chosen.transform}{levels}")
        return chosen

    def trained(self, choice: Choice, epochs: int, folder: Path) -> ForecastObjective:
        """Train a network for so many epochs; its checkpoint is in the folder."""
        history = with_calendar(self.series) if choice.cycles else self.series.history
        prepared = prepare(history, describe_forecast(history, self.table, choice))
        network = self._network(prepared, choice)
        objective = ForecastObjective(
            network, prepared, choice.window, self.options.device, self.options.tuning
        )
        if network.config.lags:
            start_linear(network, prepared, objective.develop_days)
        schedule = replace(self.options.schedule(LEARNING_RATE, WEIGHT_DECAY), epochs=epochs)
        data = self.data | {"choice": repr(choice), "period": str(self.period)}
        fit(objective, schedule, folder, self.options.resume, data)
        return objective

    def _network(self, prepared: Prepared, choice: Choice) -> RecurrentNetwork:
        """Build the network; its head sees lags of the target where there is a season to remember."""
        forecast = prepared.forecast
        config = self.options.network(
            outputs=forecast.horizon * len(forecast.quantiles),
            features=forecast.num_features,
            dropout=DROPOUT,
        )
        if choice.has_lags:
            config = replace(config, lags=choice.window, lag_feature=prepared.target_level)
        return build_network(config, self.options.seed, self.options.device)


def _outcome(
    objective: ForecastObjective,
    results: Results,
    anomaly: Anomaly,
    taken: Taken,
    table: Table,
    choice: Choice,
) -> Outcome:
    """Describe a finished run."""
    prepared = objective.prepared
    history, forecast = prepared.history, prepared.forecast
    columns = ", ".join(map(markdown.plain, table.columns))
    calendar = f" and the calendar ({', '.join(choice.cycles)})" if choice.cycles else ""
    values = _examples(objective)
    return Outcome(
        network=objective.network,
        section=forecast.model_copy(update={"anomaly": anomaly}),
        examples=[torch.from_numpy(features_of(rows, forecast)) for rows in values],
        values=values,
        results=results,
        taken=taken,
        choices={"recipe": "forecast", **table.choice(), "window": str(choice.window)},
        summary=(
            f"Forecasts {markdown.plain(table.target)} 1 to {forecast.horizon} steps ahead from "
            f"{forecast.least_observations} or more observations of {columns}{calendar}: "
            f"quantiles {', '.join(map(str, forecast.quantiles))}. "
            f"Measured on windows of {choice.window} rows."
        ),
        split=(
            f"By position: {history.develop:,} observations for training, "
            f"{history.held_out - history.develop:,} that picked the epoch, the transform, the intervals' "
            f"widths and the threshold of anomalies, the last {len(history.values) - history.held_out:,} "
            "held out. Scales come from the training part alone."
        ),
        limits=(
            "Learnt from one series: it needs rows of the same spacing, and levels and seasons like those of "
            "the training part. A step is a row, whatever the time between. A score above "
            f"{anomaly.threshold:.2f} marks a value that its forecast one step before did not expect; "
            f"{100 * anomaly.false_alarm_rate:g} % of the development part's values have one."
        ),
    )


def _examples(objective: ForecastObjective) -> list[NDArray[np.float64]]:
    """Return windows of several lengths that end in the held-out part: float64 (T, columns) each."""
    history = objective.prepared.history
    least, most = FEWEST_OBSERVATIONS, min(objective.window, MAX_EXAMPLE)
    lengths = np.unique(np.linspace(least, most, NUM_EXAMPLES).astype(int)).tolist()
    ends = np.linspace(history.held_out, len(history.values) - 1, len(lengths)).astype(int).tolist()
    return [history.values[end + 1 - length : end + 1] for length, end in zip(lengths, ends, strict=True)]
