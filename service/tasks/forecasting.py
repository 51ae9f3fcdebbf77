"""Forecasting: observations to features, outputs to values with quantiles. The arithmetic is that of `service.spec.ForecastSpec`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.delivery import Intake, run
from service.engine.sequence import Goal
from service.errors import InvalidArgument
from service.spec import ForecastSpec
from service.tasks.limits import Limits, check_count

_MEDIAN = 0.5


@dataclass(frozen=True, slots=True)
class Forecast:
    """A series' forecast.

    Attributes:
        medians: float64 (horizon,), in the target's unit.
        levels: of the quantiles.
        quantiles: float64 (horizon, levels).
        last_value: the target's last observed value.
    """

    medians: NDArray[np.float64]
    levels: list[float]
    quantiles: NDArray[np.float64]
    last_value: float


class ForecastingTask:
    """A model's columns and scales, and its engine.

    Args:
        spec: columns, target, horizon, quantiles, scales.
        engine: runs it.
        limits: sizes of requests.
    """

    def __init__(self, spec: ForecastSpec, engine: Intake, limits: Limits) -> None:
        self._spec = spec
        self._engine = engine
        self._limits = limits
        names = [column.name for column in spec.columns]
        self._target = names.index(spec.target)
        self._references = [names.index(column.reference) for column in spec.columns]
        self._is_log = np.array([column.transform == "log" for column in spec.columns])
        self._scales = np.array([column.scale for column in spec.columns])
        self._step_scales = np.array(spec.scales)

    async def forecast(
        self,
        series: Sequence[Sequence[Sequence[float]]],
        horizon: int,
        levels: Sequence[float],
        deadline: float | None,
    ) -> list[Forecast]:
        """Forecast after the last observation of each series.

        Args:
            series: observations, oldest first, each of one value a column.
            horizon: steps ahead; 0: all that the model has.
            levels: quantiles wanted; none: all that the model has.
            deadline: monotonic seconds, or None.
        Raises:
            InvalidArgument: a series, the horizon or a level is not what the model takes.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_count("series", "series", len(series), self._limits.items)
        if horizon > self._spec.horizon:
            raise InvalidArgument("horizon", f"expected 1..{self._spec.horizon} steps, or 0 for all, found {horizon}")
        columns = self._quantile_columns(levels)
        observed = [self._observations(one, f"series[{index}].observations") for index, one in enumerate(series)]
        inputs = [self._checked_features(one, f"series[{index}].observations") for index, one in enumerate(observed)]
        outputs = await run(self._engine, inputs, Goal.LAST, deadline)
        steps = horizon or self._spec.horizon
        return [
            self._forecast(output, float(one[-1, self._target]), steps, columns, f"series[{index}].observations")
            for index, (output, one) in enumerate(zip(outputs, observed, strict=True))
        ]

    def features(self, observations: NDArray[np.float64]) -> NDArray[np.float32]:
        """What the network sees: (f(value) - f(reference one step before)) / scale; float64 (T, C) -> float32 (T, C)."""
        values = np.where(self._is_log, np.log(np.where(self._is_log, observations, 1.0)), observations)
        references = values[:, self._references]
        # The first observation stands in for its own predecessor.
        before = np.concatenate([references[:1], references[:-1]])
        with np.errstate(over="ignore", invalid="ignore"):  # checked by the caller
            features: NDArray[np.float32] = ((values - before) / self._scales).astype(np.float32)
        return features

    def _checked_features(self, observations: NDArray[np.float64], field: str) -> NDArray[np.float32]:
        features = self.features(observations)
        if not np.isfinite(features).all():
            step, column = np.argwhere(~np.isfinite(features))[0]
            raise InvalidArgument(f"{field}[{step}].values[{column}]", f"expected a change that 32 bits can hold, found {observations[step, column]}")
        return features

    def _observations(self, observations: Sequence[Sequence[float]], field: str) -> NDArray[np.float64]:
        """Values as float64 (T, C), checked."""
        check_count(field, "observations", len(observations), self._limits.observations, least=self._spec.least_observations)
        names = [column.name for column in self._spec.columns]
        for step, values in enumerate(observations):
            if len(values) != len(names):
                raise InvalidArgument(f"{field}[{step}].values", f"expected {len(names)} values ({', '.join(names)}), found {len(values)}")
        array = np.array(observations, np.float64)
        wrong = ~np.isfinite(array) | (self._is_log & (array <= 0))
        if wrong.any():
            step, column = np.argwhere(wrong)[0]
            kind = "finite number above 0" if self._is_log[column] else "finite number"
            raise InvalidArgument(f"{field}[{step}].values[{column}]", f"expected a {kind} for {names[column]}, found {array[step, column]}")
        return array

    def _quantile_columns(self, levels: Sequence[float]) -> list[int]:
        """Which of the model's quantiles are wanted, in the order asked for."""
        unknown = [level for level in levels if level not in self._spec.quantiles]
        if unknown:
            raise InvalidArgument("quantiles", f"expected levels among {self._spec.quantiles}, found {unknown}")
        return [self._spec.quantiles.index(level) for level in levels] or list(range(len(self._spec.quantiles)))

    def _forecast(self, output: NDArray[np.float32], last: float, steps: int, columns: list[int], field: str) -> Forecast:
        changes = output.astype(np.float64).reshape(self._spec.horizon, -1) * self._step_scales[:, None]  # (horizon, Q)
        is_log = self._is_log[self._target]
        with np.errstate(over="ignore"):  # checked below
            values = np.exp(np.log(last) + changes) if is_log else last + changes
        if not np.isfinite(values).all():
            raise InvalidArgument(field, f"expected a last value that leaves room for its forecast, found {last}")
        # Quantiles that cross are put in order (rearrangement: Chernozhukov, Fernandez-Val & Galichon 2010).
        values = np.sort(values, axis=1)[:steps]
        medians = values[:, self._spec.quantiles.index(_MEDIAN)]
        return Forecast(medians, [self._spec.quantiles[column] for column in columns], values[:, columns], last)
