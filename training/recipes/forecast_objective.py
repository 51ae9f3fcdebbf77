"""What the recipe `forecast` optimises, and where its network starts and ends.

The network forecasts at every step of its windows, not at their last one alone: a window of 168 rows teaches
as much as 160 windows that end at each of its rows.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.forecasting import FEWEST_OBSERVATIONS, Prepared
from training.loop import parallel
from training.loop.tuning import Tuning
from training.networks.calibration import spread_factor
from training.networks.network import RecurrentNetwork, last_steps

Floats = NDArray[np.float64]
Days = NDArray[np.int64]

ROWS = 32
# Rows of the training part for each window of an epoch: each row is in about a window's length / 16 of them.
ROWS_A_WINDOW = 16
FEWEST_STEPS = 10
MAX_DEVELOP_WINDOWS = 400
ROWS_AT_ONCE = 256
PENALTIES = (1.0, 10.0, 100.0, 1000.0)


class ForecastObjective:
    """Pinball loss (Koenker & Bassett 1978) over all steps ahead and quantiles, at every step of windows.

    Args:
        network: its outputs are (horizon x levels), step by step.
        prepared: the series.
        window: rows of a window.
        device: where to compute.
        tuning: windows of a batch.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        prepared: Prepared,
        window: int,
        device: str,
        tuning: Tuning = Tuning(),
    ) -> None:
        self.network = network
        self.prepared = prepared
        self.window = window
        self._rows = tuning.batch_or(ROWS, prepared.history.develop)
        self.device = device
        history, horizon = prepared.history, prepared.forecast.horizon
        # What comes after the training part is no target of it.
        known = np.arange(history.develop)[:, None] + np.arange(1, horizon + 1) < history.develop
        self._targets = np.where(known, prepared.targets[: history.develop], np.nan).astype(np.float32)
        # A linear start forecasts badly where its lags are not filled: such steps are no part of the loss.
        self._span = window + prepared.forecast.least_observations - FEWEST_OBSERVATIONS
        self.steps_per_epoch = max(FEWEST_STEPS, history.develop // (ROWS_A_WINDOW * self._rows))
        days = np.arange(history.develop - 1, history.held_out - horizon)
        self._develop_days = days[:: 1 + len(days) // MAX_DEVELOP_WINDOWS]

    @property
    def develop_days(self) -> Days:
        """Rows of the development part whose whole future lies in it, as their forecasts are measured."""
        return self._develop_days

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the loss of each batch of windows, which begin anywhere in the training part."""
        history, least = self.prepared.history, self.prepared.forecast.least_observations
        last = history.develop - self.prepared.forecast.horizon
        ends = torch.randint(min(self._span, last) - 1, last, (self.steps_per_epoch, self._rows)).numpy()
        share = parallel.share()
        share.part_ways()
        for days in ends:
            part = share.part(self._rows)
            own = days[part.rows]
            features, lengths = self.prepared.windows(own, self._span)
            rows = np.minimum((own - lengths + 1)[:, None] + np.arange(self._span), own[:, None])
            targets = self._targets[rows]
            targets[np.arange(self._span) >= lengths[:, None]] = np.nan
            hidden, _ = self.network(torch.from_numpy(features).to(self.device), torch.from_numpy(lengths))
            outputs = self._by_step(self.network.outputs_of(hidden[:, least - 1 :]))
            yield part.weight * self._pinball(outputs, torch.from_numpy(targets[:, least - 1 :]))

    def develop(self) -> float:
        """Return the loss at the ends of windows that end in the development part."""
        targets = torch.from_numpy(self.prepared.targets[self._develop_days])
        return float(self._pinball(self.outputs(self._develop_days).to(self.device), targets))

    def outputs(self, days: Days) -> Tensor:
        """Return the outputs at the ends of the windows that end with the rows: (D, horizon, levels)."""
        found = []
        with torch.no_grad():
            for start in range(0, len(days), ROWS_AT_ONCE):
                features, lengths = self.prepared.windows(days[start : start + ROWS_AT_ONCE], self.window)
                ends = torch.from_numpy(lengths)
                hidden, _ = self.network(torch.from_numpy(features).to(self.device), ends)
                found.append(self._by_step(self.network.outputs_of(last_steps(hidden, ends))))
        return torch.cat(found)

    def quantiles(self, days: Days) -> Floats:
        """Return the forecasts after the rows in the target's unit: (D, horizon, levels)."""
        return self.prepared.values(days, self.outputs(days).double().cpu().numpy())

    def _by_step(self, outputs: Tensor) -> Tensor:
        forecast = self.prepared.forecast
        return outputs.reshape(*outputs.shape[:-1], forecast.horizon, len(forecast.quantiles))

    def _pinball(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of outputs (..., horizon, levels) where targets (..., horizon) are known."""
        error = targets.to(self.device)[..., None] - outputs
        levels = torch.tensor(self.prepared.forecast.quantiles, device=self.device)
        losses = torch.maximum(levels * error, (levels - 1) * error)
        return losses[~torch.isnan(losses)].mean()


def start_linear(network: RecurrentNetwork, prepared: Prepared, develop: Days) -> None:
    """Start a network with lags as the linear autoregression that fits the training part best.

    The head gives the regression on the lags with the quantiles of its errors; the hidden state's share in it
    starts at zero. On an hourly load this takes a sixth off the error at the next hour.

    Args:
        network: changed in place.
        prepared: the series.
        develop: rows that choose the penalty.
    """
    head, lags = network.head, network.config.lags
    assert isinstance(head, nn.Linear), "a network with lags has a head"
    level = prepared.features[:, network.config.lag_feature].astype(np.float64)
    padded = np.concatenate([np.zeros(lags - 1), level])
    seen = np.lib.stride_tricks.sliding_window_view(padded, lags)  # (N, lags)
    inputs = np.column_stack([seen, np.ones(len(seen))])
    train = np.arange(lags // 2, prepared.history.develop - prepared.forecast.horizon)
    wanted = prepared.targets.astype(np.float64)
    gram, product = inputs[train].T @ inputs[train], inputs[train].T @ wanted[train]
    weights = [np.linalg.solve(gram + penalty * np.eye(lags + 1), product) for penalty in PENALTIES]
    best = min(weights, key=lambda one: float(np.mean((inputs[develop] @ one - wanted[develop]) ** 2)))
    errors = np.quantile(wanted[train] - inputs[train] @ best, prepared.forecast.quantiles, axis=0).T
    hidden, levels = network.config.hidden, len(prepared.forecast.quantiles)
    with torch.no_grad():
        by_level = head.weight.view(-1, levels, hidden + lags)
        by_level[:, :, :hidden] = 0
        by_level[:, :, hidden:] = torch.from_numpy(best[:lags].T / network.config.lag_scale)[:, None].to(
            by_level
        )
        head.bias.view(-1, levels).copy_(torch.from_numpy(best[lags][:, None] + errors).to(head.bias))


def calibrate(objective: ForecastObjective) -> Floats:
    """Widen the interval of each step ahead until it holds its share of the development part.

    It is never narrowed: a development part of an easy season would promise too much for the others.

    Returns:
        The factors, (horizon,).
    """
    days, levels = objective.develop_days, objective.prepared.forecast.quantiles
    outputs = objective.outputs(days).double().cpu().numpy()
    targets = objective.prepared.targets[days].astype(np.float64)
    factors = np.array(
        [
            max(1.0, spread_factor(outputs[:, [step]], targets[:, [step]], levels))
            for step in range(objective.prepared.forecast.horizon)
        ]
    )
    head, median = objective.network.head, levels.index(0.5)
    assert isinstance(head, nn.Linear), "a forecaster has a head"
    with torch.no_grad():
        for parameter in (head.weight, head.bias):
            by_level = parameter.view(len(factors), len(levels), -1)
            middle = by_level[:, median : median + 1].clone()
            by_level.copy_(middle + torch.from_numpy(factors).to(middle)[:, None, None] * (by_level - middle))
    return factors
