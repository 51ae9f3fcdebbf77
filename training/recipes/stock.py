"""Forecasting: many to one, from a window of past observations to quantiles of the target in each of the next
steps.

Everything is a change from the last value (service.contract.spec.ForecastSpec has the formulas), so a zero
output is the last value again: the forecast that a network has to be measured beside. Scales come from the
training part alone. Arrays are batch first; windows are padded at their end, and only the output at a
window's last observation counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from service.contract.spec import ForecastSpec
from training import markdown
from training.data.series import (
    HORIZON,
    LEAST_OBSERVATIONS,
    QUANTILES,
    Floats,
    History,
    Table,
    describe,
    features_of,
    read_series,
    target_index,
    targets_of,
)
from training.data.unchanged import take
from training.export.chunks import ChunkCell
from training.export.gate import INT8_KEY, Gate, Int8
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.loop.tuning import Tuning
from training.networks.calibration import is_near_share, spread, spread_factor
from training.networks.network import RecurrentNetwork, last_steps
from training.recipes.baselines import constant_interval
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import Outcome, RunOptions, deliver, int8_graph, say, use_one_thread
from training.recipes.volatility import choose_volatility
from training.writing import write_whole

LONGEST_WINDOW = 64
# In the run's folder: the newest observations as the command takes them, whatever form the user's file has.
RECENT_FILE = "recent.csv"
ROWS = 64  # fewer for small data
FEWEST_ROWS = 4
FEWEST_STEPS = 20
DROPOUT = 0.2
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1
EXAMPLE_LENGTHS = (1, 7, 8, 20, 41, 64)
# Forecasts of neighbouring days overlap; chance is judged by blocks of so many.
DAYS_A_BLOCK = 20
# Per cent.
INT8_COST = 1.0


def train(options: RunOptions, table: Table) -> Path:
    """The whole recipe.

    Returns:
        The folder exported to.
    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    use_one_thread()
    taken = take(table.source)
    series = read_series(table)
    taken.check_after_reading()
    history = series.history
    for note in series.notes:
        say(note)
    forecast = describe(history, table)
    volatility, trials = choose_volatility(history, forecast, (LEAST_OBSERVATIONS, LONGEST_WINDOW))
    for trial in trials:
        say(str(trial))
    shape = replace(
        options.network(
            outputs=HORIZON * len(QUANTILES),
            features=len(forecast.columns),
            dropout=DROPOUT,
            input_dropout=DROPOUT,
        ),
        volatility=volatility,
    )
    network = build_network(shape, options.seed, options.device)
    objective = ForecastObjective(network, history, forecast, options.device, options.tuning)
    data = {"sha256": taken.sha256, **table.choice()}
    fit(objective, options.schedule(LEARNING_RATE, WEIGHT_DECAY), options.folder, options.resume, data)
    parallel.share().dismiss_followers()
    recent = options.folder / RECENT_FILE
    write_whole(recent, series.recent(table, LONGEST_WINDOW).encode())
    calibrate(network, objective)
    graph = int8_graph(options, network)
    results = evaluate(network, history, forecast, options.device, graph)
    outcome = Outcome(
        network=network,
        section=forecast,
        examples=examples(history, forecast, options.seed),
        results=results,
        taken=taken,
        choices={"recipe": "stock", **table.choice()},
        summary=(
            f"Forecasts {markdown.plain(table.target)} {HORIZON} steps ahead "
            f"from {LEAST_OBSERVATIONS} or more "
            f"observations of {', '.join(map(markdown.plain, table.columns))}: "
            f"quantiles {', '.join(map(str, QUANTILES))}."
        ),
        split=(
            f"By position: {history.develop:,} observations for training, "
            f"{history.held_out - history.develop:,} that picked the epoch and the interval's width, "
            f"the last {len(history.values) - history.held_out:,} held out. "
            "Transforms and scales come from the training part alone."
        ),
        limits=(
            "Learnt from one series. Where that is close to a random walk, "
            "as prices are, the median hardly differs from the last value, "
            "and what the network adds is the width of its interval. Not advice to trade."
        ),
        int8=Int8(graph, int8_gate(results.metrics())) if graph else None,
        call=("forecast", "--file", str(recent)),
    )
    return deliver(options, outcome)


class ForecastObjective:
    """Pinball loss (Koenker & Bassett 1978) over all steps ahead and quantiles, at the last observation of
    windows of mixed lengths.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        history: History,
        forecast: ForecastSpec,
        device: str,
        tuning: Tuning = Tuning(),
    ) -> None:
        self.network = network
        self.history = history
        self.forecast = forecast
        self.device = device
        self.targets = (targets_of(history, forecast) / forecast.scales).astype(
            np.float32
        )  # (N, horizon), by last observation
        # A window's last observation t is followed by its targets t + 1 .. t + horizon, which must lie in its
        # part.
        self.train_days = np.arange(LEAST_OBSERVATIONS - 1, history.develop - forecast.horizon)
        self.develop_days = np.arange(history.develop - 1, history.held_out - forecast.horizon)
        rows = min(ROWS, max(FEWEST_ROWS, len(self.train_days) // FEWEST_STEPS))
        self.rows = tuning.batch_or(rows, len(self.train_days))
        self.steps_per_epoch = -(-len(self.train_days) // self.rows)

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        """Windows ending on every day of the training part, in random order, of random lengths."""
        order = self.train_days[torch.randperm(len(self.train_days)).numpy()]
        lengths = torch.randint(LEAST_OBSERVATIONS, LONGEST_WINDOW + 1, (len(order),)).numpy()
        share = parallel.share()
        share.part_ways()
        for start in range(0, len(order), self.rows):
            batch = slice(start, min(start + self.rows, len(order)))
            part = share.part(batch.stop - batch.start)
            yield part.weight * self._loss(order[batch][part.rows], lengths[batch][part.rows])

    def develop(self) -> float:
        """Mean of the losses on shortest and on longest windows."""
        losses = [
            float(self._loss(self.develop_days, np.full(len(self.develop_days), length)))
            for length in (LEAST_OBSERVATIONS, LONGEST_WINDOW)
        ]
        return sum(losses) / len(losses)

    def _loss(self, days: NDArray[np.int64], lengths: NDArray[np.int64]) -> Tensor:
        outputs = window_outputs(
            self.network, self.history, self.forecast, Windows(days, lengths), self.device
        )  # (B, horizon, quantiles)
        targets = torch.from_numpy(self.targets[days]).to(self.device)[:, :, None]  # (B, horizon, 1)
        error = targets - outputs
        levels = torch.tensor(self.forecast.quantiles, device=self.device)
        return torch.maximum(levels * error, (levels - 1) * error).mean()


def calibrate(network: RecurrentNetwork, objective: ForecastObjective) -> float:
    """Stretch the network's interval until it holds its share of the development part, in shortest and
    longest windows.

    A network that is scaled by recent volatility is left as it is where its coverage is off by no more than
    the standard error that so short a part has: there, the factor would be noise.

    Returns:
        The factor.
    """
    days, forecast = objective.develop_days, objective.forecast
    with torch.no_grad():
        outputs = [
            window_outputs(
                network,
                objective.history,
                forecast,
                Windows(days, np.full(len(days), length)),
                objective.device,
            )
            for length in (LEAST_OBSERVATIONS, LONGEST_WINDOW)
        ]
    quantiles = torch.cat(outputs).double().cpu().numpy()
    targets = np.tile(objective.targets[days], (len(outputs), 1)).astype(np.float64)
    # Changes over the horizon overlap: that many of the days are independent.
    independent = len(days) / forecast.horizon
    if network.config.volatility and is_near_share(quantiles, targets, forecast.quantiles, independent):
        return 1.0
    factor = spread_factor(quantiles, targets, forecast.quantiles)
    spread(network, factor, forecast.quantiles)
    return factor


class Windows(NamedTuple):
    """Which windows: (B,) indices of their last observations, (B,) how many observations at most."""

    days: NDArray[np.int64]
    lengths: NDArray[np.int64]


def window_outputs(
    network: RecurrentNetwork, history: History, forecast: ForecastSpec, windows: Windows, device: str
) -> Tensor:
    """The network's output after the last observation of each window: float32 (B, horizon, quantiles), in
    units of `forecast.scales`.
    """
    inputs = [torch.from_numpy(window) for window in window_inputs(history, forecast, windows)]
    lengths = torch.tensor([len(window) for window in inputs])
    hidden, _ = network(pad_sequence(inputs, batch_first=True).to(device), lengths)
    outputs = network.outputs_of(last_steps(hidden, lengths))
    return outputs.view(len(inputs), forecast.horizon, len(forecast.quantiles))


def window_inputs(history: History, forecast: ForecastSpec, windows: Windows) -> list[NDArray[np.float32]]:
    """The features of each window: float32 (T, columns)."""
    return [
        features_of(history.values[max(0, day + 1 - length) : day + 1], forecast)
        for day, length in zip(windows.days, windows.lengths, strict=True)
    ]


def served_outputs(cell: ChunkCell, history: History, forecast: ForecastSpec, windows: Windows) -> Tensor:
    """`window_outputs` of a graph as it is served."""
    outputs = np.stack([steps[-1] for steps in cell.served(window_inputs(history, forecast, windows))])
    return torch.from_numpy(outputs).view(len(outputs), forecast.horizon, len(forecast.quantiles))


def int8_gate(metrics: Mapping[str, float]) -> Gate:
    """What int8 weights may add to the held-out pinball loss, on shortest or on longest windows."""
    pairs = [
        (metrics[f"{INT8_KEY}_{length}_pinball"], metrics[f"held_out_{length}_pinball"])
        for length in (LEAST_OBSERVATIONS, LONGEST_WINDOW)
    ]
    # Not max(): it passes over NaN.
    cost = float(np.max([100 * (int8 / fp32 - 1) for int8, fp32 in pairs]))
    return Gate("held-out pinball loss above that of fp32, %", INT8_COST, cost)


def examples(history: History, forecast: ForecastSpec, seed: int) -> list[Tensor]:
    """Windows of several lengths that end in the held-out part: float32 (T, columns) each."""
    days = np.random.default_rng(seed).integers(history.held_out, len(history.values), len(EXAMPLE_LENGTHS))
    windows = [
        history.values[max(0, day + 1 - length) : day + 1]
        for day, length in zip(days, EXAMPLE_LENGTHS, strict=True)
    ]
    return [torch.from_numpy(features_of(window, forecast)) for window in windows]


def evaluate(
    network: RecurrentNetwork,
    history: History,
    forecast: ForecastSpec,
    device: str,
    int8: bytes | None = None,
) -> Results:
    """On shortest and longest held-out windows: the network, int8 weights where they are given, an interval
    of constant width, the last value.
    """
    days = np.arange(history.held_out - 1, len(history.values) - 1)  # the next value of each is held out
    last = history.values[days, target_index(forecast)]
    kind = forecast.column(forecast.target).transform
    changes = targets_of(history, forecast)
    future = _moved(last, changes[days], kind)  # (D, horizon), NaN past the end

    def quantiles_of(outputs: Tensor) -> Floats:
        in_unit = _moved(last, outputs.double().cpu().numpy() * np.array(forecast.scales)[:, None], kind)
        # Quantiles that cross are put in order (Chernozhukov, Fernandez-Val & Galichon 2010), as the service
        # does.
        return np.sort(in_unit, axis=2)

    quantiles: dict[Contender, Floats] = {}
    for length in (LEAST_OBSERVATIONS, LONGEST_WINDOW):
        windows = Windows(days, np.full(len(days), length))
        with torch.no_grad():
            outputs = window_outputs(network, history, forecast, windows, device)
        quantiles[Contender(f"{network.config.cell}, last {length}", f"held_out_{length}")] = quantiles_of(
            outputs
        )
        if int8:
            outputs = served_outputs(ChunkCell(int8), history, forecast, windows)
            quantiles[Contender(f"int8, last {length}", f"{INT8_KEY}_{length}")] = quantiles_of(outputs)
    constant = constant_interval(
        changes[: history.develop - forecast.horizon], forecast.quantiles
    )  # (horizon, quantiles)
    quantiles[Contender("constant", "baseline_constant")] = _moved(
        last, np.broadcast_to(constant, (len(days), *constant.shape)), kind
    )
    quantiles[Contender("last value", "baseline_last")] = np.repeat(last, constant.size).reshape(
        -1, *constant.shape
    )
    return _results(quantiles, future, forecast)


def _moved(last: Floats, change: Floats, kind: Literal["log", "none"]) -> Floats:
    """The target after a change of f(target): last (D,), change (D, ...) -> (D, ...)."""
    start = last.reshape(-1, *[1] * (change.ndim - 1))
    return start * np.exp(change) if kind == "log" else start + change


def _results(quantiles: dict[Contender, Floats], future: Floats, forecast: ForecastSpec) -> Results:
    """Measures of quantile forecasts (D, horizon, quantiles), the naive one last, against what came (D,
    horizon).
    """
    *intervals, naive = quantiles.values()
    levels = np.array(forecast.quantiles)
    median = forecast.quantiles.index(0.5)
    unit = forecast.column(forecast.target).unit
    in_unit = f", {unit}" if unit else ""

    def root_mean_square(one: Floats) -> float:
        return float(np.sqrt(np.nanmean((one[:, 0, median] - future[:, 0]) ** 2)))

    def errors(one: Floats) -> Floats:
        error = future[:, :, None] - one
        return np.maximum(levels * error, (levels - 1) * error)

    def pinball(one: Floats) -> float:
        return float(np.nanmean(errors(one)))

    whole = ~np.isnan(future).any(axis=1)  # windows whose whole horizon is known

    def coverage(one: Floats, steps: slice) -> float:
        known = ~np.isnan(future[:, steps])
        inside = (one[:, steps, 0] <= future[:, steps]) & (future[:, steps] <= one[:, steps, -1])
        return 100 * float(inside[known].mean())

    everyone = tuple(quantiles.values())
    share = round(100 * (levels[-1] - levels[0]))
    measures = [
        Measure(
            f"RMSE, next {forecast.target}{in_unit}", "rmse_next", tuple(map(root_mean_square, everyone))
        ),
        Measure(
            "  / last value's",
            "rmse_next_ratio",
            tuple(root_mean_square(one) / root_mean_square(naive) for one in everyone),
            ".4f",
        ),
        Measure(
            f"pinball loss{in_unit}",
            "pinball",
            (*map(pinball, intervals), None),
            units=(*(errors(one)[whole].mean(axis=(1, 2)) for one in intervals), None),
            block=DAYS_A_BLOCK,
        ),
        Measure(
            f"in {share} % interval, %",
            "coverage",
            (*(coverage(one, slice(None)) for one in intervals), None),
            ".1f",
        ),
    ]
    for step in range(forecast.horizon):
        covers = (*(coverage(one, slice(step, step + 1)) for one in intervals), None)
        measures.append(Measure(f"  {step + 1} ahead", f"coverage_{step + 1}", covers, ".1f"))
    widths = (*(float(np.mean(one[:, :, -1] - one[:, :, 0])) for one in intervals), None)
    measures.append(Measure(f"its mean width{in_unit}", "width", widths, ".2f"))
    return Results(
        f"{forecast.target}, {len(future):,} steps held out; constant: an interval of one width",
        tuple(quantiles),
        tuple(measures),
        main="pinball",
    )
