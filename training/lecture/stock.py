"""The lesson stock: from seven days to the eighth day's close, every column scaled by its range in training.

Two nets on the same windows. The first reads and forecasts scaled prices, as lectures do: in the held-out
years prices leave the range that it was scaled by, and it never gets near the last value. The second reads
and forecasts changes in the same scale, so that an output of zero is the last value again. The contract with
the service knows changes alone, so the second is the one that is served.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.contract.spec import Column, ForecastSpec
from training.data.series import Floats, choose, features_of, read_values
from training.data.sources import GOOG
from training.export.card import CardFacts
from training.export.export import Package, provenance
from training.loop.fit import build_network
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

COLUMNS = ("open", "high", "low", "close", "volume")
CLOSE = COLUMNS.index("close")
DAYS = 7
TRAIN_SHARE = 0.7
HIDDEN = 10
LEVEL_EPOCHS, LEVEL_RATE = 200, 0.02
CHANGE_EPOCHS, CHANGE_RATE = 100, 0.01


@dataclass(frozen=True, slots=True)
class History:
    """Prices, and how they are scaled.

    Attributes:
        values: float64 (N, 5), USD and shares, oldest first.
        train: days 0..train-1 are trained on, the others held out.
        least, most: float64 (5,) each, of the days trained on.
    """

    values: Floats
    train: int
    least: Floats
    most: Floats

    @property
    def eighth(self) -> NDArray[np.int64]:
        """Return the days that are forecast: all that have seven before them."""
        return np.arange(DAYS, len(self.values))

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Return which of them are not trained on."""
        return self.eighth >= self.train

    @property
    def range_of_close(self) -> float:
        """Return the USD between the lowest and the highest close."""
        return float(self.most[CLOSE] - self.least[CLOSE])

    def windows(self, scaled: bool) -> list[Floats]:
        """Return the seven days before each day that is forecast: (7, 5) each."""
        values = (self.values - self.least) / (self.most - self.least) if scaled else self.values
        return [values[day - DAYS : day] for day in self.eighth]


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A trained net and its forecasts.

    Attributes:
        title: for tables and pictures.
        network: one output.
        losses: mean square error in the scale, an entry an epoch.
        forecast: float64, USD, an entry a day of `History.eighth`.
    """

    title: str
    network: RecurrentNetwork
    losses: list[float]
    forecast: Floats


@dataclass(frozen=True, slots=True)
class Market:
    """Both nets beside the last value."""

    history: History
    levels: Forecaster
    changes: Forecaster
    seed: int

    @property
    def truth(self) -> Floats:
        """Return the closes of the days that are forecast."""
        closes: Floats = self.history.values[self.history.eighth, CLOSE]
        return closes

    @property
    def naive(self) -> Floats:
        """Return the closes of the days before them."""
        closes: Floats = self.history.values[self.history.eighth - 1, CLOSE]
        return closes

    def error(self, forecast: Floats, *, held_out: bool) -> float:
        """Return the root mean square error in USD."""
        days = self.history.held_out == held_out
        return float(np.sqrt(np.mean((forecast - self.truth)[days] ** 2)))

    def lines(self) -> Iterator[str]:
        """Return the scales, the errors, and a few days."""
        history = self.history
        held_out = int(history.held_out.sum())
        yield (
            f"windows (batch, {DAYS}, {len(COLUMNS)}) -> (batch, 1): "
            f"{len(history.eighth) - held_out} to train on, the last {held_out} held out"
        )
        closes = history.values[:, CLOSE]
        yield (
            f"close in the training part {history.least[CLOSE]:.2f} to {history.most[CLOSE]:.2f} USD, "
            f"that is 0 to 1; held out {closes[history.train :].min():.2f} "
            f"to {closes[history.train :].max():.2f}"
        )
        for net in (self.levels, self.changes):
            shown = [net.losses[0], net.losses[len(net.losses) // 4], net.losses[-1]]
            yield (
                f"  {net.title}: loss {' '.join(f'{loss:.6f}' for loss in shown)} in {len(net.losses)} epochs"
            )
        yield f"{'RMSE, USD':<28}{'training':>9}{'held out':>10}"
        for title, forecast in (
            (self.levels.title, self.levels.forecast),
            (self.changes.title, self.changes.forecast),
            ("last value", self.naive),
        ):
            yield (
                f"  {title:<26}{self.error(forecast, held_out=False):>9.2f}"
                f"{self.error(forecast, held_out=True):>10.2f}"
            )
        ratio = self.error(self.changes.forecast, held_out=True) / self.error(self.naive, held_out=True)
        yield (
            f"{self.changes.title} against the last value, held out: {ratio:.4f}; "
            "1 is no better than saying that nothing changes"
        )
        yield f"{'last days':<12}{'truth':>9}{'levels':>9}{'changes':>9}{'last':>9}"
        for day in (-3, -2, -1):
            row = (self.truth[day], self.levels.forecast[day], self.changes.forecast[day], self.naive[day])
            yield f"{'':12}{''.join(f'{value:9.2f}' for value in row)}"

    def package(self) -> Package:
        """Return the package of the net of changes."""
        windows = self.history.windows(scaled=False)
        section = describe(self.history)
        examples = [torch.from_numpy(features_of(windows[-1][-length:], section)) for length in (1, 3, DAYS)]
        error, naive = self.error(self.changes.forecast, held_out=True), self.error(self.naive, held_out=True)
        return Package(
            name="stock",
            network=self.changes.network,
            section=section,
            examples=examples,
            metrics={"held_out_rmse_next": error, "baseline_last_rmse_next": naive},
            provenance=provenance(
                GOOG.description, GOOG.licence, hashlib.sha256(GOOG.path.read_bytes()).hexdigest(), self.seed
            ),
            card=CardFacts(
                summary=(
                    f"Forecasts the next close from {DAYS} days "
                    f"of {', '.join(COLUMNS)}: a lesson of docs/lecture.md."
                ),
                split=(
                    f"By position: the first {self.history.train:,} days for training, "
                    "the others held out. Scales come from the training part."
                ),
                results=(
                    f"RMSE of the next close {error:.3f} USD; saying that nothing changes {naive:.3f} USD."
                ),
                limits="Hardly differs from the last value. Not advice to trade.",
            ),
        )

    def question(self) -> str:
        """Return a command; the shipped file has the columns in this order."""
        return "seqserve forecast --model stock --last 7 --file training/data/goog.csv"


def read_history() -> History:
    """Read the shipped prices; the scales come from the training part."""
    values = read_values(choose(GOOG, COLUMNS, "close", None, "date"))
    train = int(len(values) * TRAIN_SHARE)
    return History(values, train, values[:train].min(axis=0), values[:train].max(axis=0))


def describe(history: History) -> ForecastSpec:
    """Return the contract's formulas with the ranges of the training part as scales.

    They give changes of what min-max scaling makes of the prices.
    """
    ranges = history.most - history.least
    columns = [
        Column(
            name=name,
            unit="shares" if name == "volume" else "USD",
            transform="none",
            reference="volume" if name == "volume" else "close",
            scale=float(one),
        )
        for name, one in zip(COLUMNS, ranges, strict=True)
    ]
    return ForecastSpec(
        columns=columns,
        target="close",
        horizon=1,
        quantiles=[0.5],
        scales=[history.range_of_close],
        least_observations=DAYS,
    )


def teach(cell: Cell, seed: int) -> Market:
    """Train the net of levels, then that of changes."""
    history = read_history()
    return Market(history, train_levels(history, cell, seed), train_changes(history, cell, seed), seed)


def train_levels(history: History, cell: Cell, seed: int) -> Forecaster:
    """Train a net from scaled prices to the scaled close."""
    inputs = np.stack(history.windows(scaled=True)).astype(np.float32)
    targets = (history.values[history.eighth, CLOSE] - history.least[CLOSE]) / history.range_of_close
    network, losses, outputs = _learn(history, inputs, targets, cell, seed, LEVEL_EPOCHS, LEVEL_RATE)
    return Forecaster(
        "scaled prices", network, losses, history.least[CLOSE] + outputs * history.range_of_close
    )


def train_changes(history: History, cell: Cell, seed: int) -> Forecaster:
    """Train a net from changes in the same scale to the change of the close."""
    section = describe(history)
    inputs = np.stack([features_of(window, section) for window in history.windows(scaled=False)])
    last = history.values[history.eighth - 1, CLOSE]
    targets = (history.values[history.eighth, CLOSE] - last) / history.range_of_close
    network, losses, outputs = _learn(history, inputs, targets, cell, seed, CHANGE_EPOCHS, CHANGE_RATE)
    return Forecaster("scaled changes", network, losses, last + outputs * history.range_of_close)


def _learn(
    history: History,
    inputs: NDArray[np.float32],
    targets: Floats,
    cell: Cell,
    seed: int,
    epochs: int,
    rate: float,
) -> tuple[RecurrentNetwork, list[float], Floats]:
    """Minimize the mean square error at the last of seven steps, over all training windows at once.

    Returns the network, its losses, and its outputs for all windows.
    """
    network = build_network(NetworkConfig(cell, 1, HIDDEN, 1, features=len(COLUMNS)), seed, "cpu")
    train = torch.from_numpy(~history.held_out)
    days, eighth = torch.from_numpy(inputs), torch.from_numpy(targets.astype(np.float32))
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(epochs):
        loss = nn.functional.mse_loss(_last_output(network, days[train]), eighth[train])
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    network.eval()
    with torch.no_grad():
        outputs: Floats = _last_output(network, days).double().numpy()
    return network, losses, outputs


def _last_output(network: RecurrentNetwork, days: Tensor) -> Tensor:
    hidden, _ = network(days)
    return network.outputs_of(hidden[:, -1])[:, 0]
