"""Forecasting: observations to features, outputs to values with quantiles. `service.tasks.changes` has the
arithmetic.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, repeat
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import ForecastSpec
from service.engine.delivery import Intake
from service.engine.gather import collect
from service.engine.sequence import Caller, Goal
from service.errors import InvalidArgument
from service.tasks.changes import Changes
from service.tasks.limits import Limits, check_count

_MEDIAN = 0.5

Observations = Sequence[Sequence[float]]


class Wanted(NamedTuple):
    """What a caller asks for, checked.

    Attributes:
        steps: ahead.
        levels: of the quantiles.
        pick: takes the median and the quantiles of each step out of all the model's (horizon * quantiles,).
    """

    steps: int
    levels: list[float]
    pick: Callable[[list[float]], tuple[float, ...]]


class Forecast(NamedTuple):
    """A series' forecast.

    Attributes:
        wanted: what was asked for.
        numbers: of each step ahead the median and the quantiles, in the target's unit, (steps * (1 +
            levels),).
        last_value: the target's last observed value.
    """

    wanted: Wanted
    numbers: tuple[float, ...]
    last_value: float

    @property
    def medians(self) -> NDArray[np.float64]:
        """float64 (steps,)."""
        return np.reshape(self.numbers, (self.wanted.steps, -1))[:, 0]

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """float64 (steps, levels)."""
        return np.reshape(self.numbers, (self.wanted.steps, -1))[:, 1:]


class Observed(NamedTuple):
    """Series that have been checked. A level is f(value), f being a column's transform.

    Attributes:
        features: float32 (T, C) a series.
        last_values: the target's, (S,).
        last_levels: the target's, (S,).
        levels: of all columns, after the last series: (C,).
    """

    features: list[NDArray[np.float32]]
    last_values: list[float]
    last_levels: list[float]
    levels: list[float]


class ForecastingTask:
    """A model's columns and scales, and its engine.

    Args:
        spec: columns, target, horizon, quantiles, scales.
        engine: runs it.
        limits: sizes of requests.
    """

    def __init__(self, spec: ForecastSpec, engine: Intake, limits: Limits) -> None:
        self._spec = spec
        self.engine = engine
        self._limits = limits
        self._changes = Changes(spec)
        self._widths = {len(spec.columns)}
        self._everything = self._wanted(spec.horizon, spec.quantiles)
        self.least_observations = spec.least_observations

    async def forecast(
        self, series: Sequence[Observations], horizon: int, levels: Sequence[float], caller: Caller
    ) -> list[Forecast]:
        """Forecast after the last observation of each series.

        Args:
            series: observations, oldest first, each of one value a column.
            horizon: steps ahead; 0: all that the model has.
            levels: quantiles wanted; none: all that the model has.
            caller: who asks.

        Raises:
            InvalidArgument: a series, the horizon or a level is not what the model takes.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_count("series", "series", len(series), self._limits.items)
        wanted = self.wanted(horizon, levels)
        fields = [f"series[{index}].observations" for index in range(len(series))]
        observed = self.observe(series, fields, self.least_observations)
        outputs = await collect(self.engine, observed.features, Goal.LAST, caller)
        return self.forecasts(outputs, observed, wanted, fields)

    def wanted(self, horizon: int, levels: Sequence[float]) -> Wanted:
        """Check what is asked for.

        Raises:
            InvalidArgument: the horizon or a level is not one of the model's.
        """
        if horizon > self._spec.horizon:
            raise InvalidArgument(
                "horizon", f"expected 1..{self._spec.horizon} steps, or 0 for all, found {horizon}"
            )
        if not levels:
            return (
                self._everything
                if horizon in (0, self._spec.horizon)
                else self._wanted(horizon, self._spec.quantiles)
            )
        check_count("quantiles", "levels", len(levels), self._limits.items)
        unknown = [level for level in levels if level not in self._spec.quantiles]
        if unknown:
            raise InvalidArgument(
                "quantiles", f"expected levels among {self._spec.quantiles}, found {unknown}"
            )
        return self._wanted(horizon or self._spec.horizon, list(levels))

    def observe(
        self,
        series: Sequence[Observations],
        fields: Sequence[str],
        least: int,
        before: Sequence[float] | None = None,
    ) -> Observed:
        """Check series and take what is needed of them.

        Args:
            series: at least one.
            fields: path of each in the request.
            least: fewest observations of each.
            before: levels before the first observation of the one series that goes on; None: they start.

        Raises:
            InvalidArgument: a series is not what the model takes.
        """
        counts = list(map(len, series))
        rows = series[0] if len(series) == 1 else list(chain.from_iterable(series))
        if (
            min(counts) < least
            or max(counts) > self._limits.observations
            or set(map(len, rows)) != self._widths
        ):
            self._refuse_sizes(series, fields, least)
        target = self._changes.target
        if len(series) == 1 and (few := self._changes.few_features(rows, before)) is not None:
            features, levels = few
            return Observed([features], [rows[-1][target]], [levels[target]], levels)
        values = np.array(rows, np.float64)  # (N, C)
        ends = list(accumulate(counts))
        starts = [0, *ends[:-1]]
        # What is outside f's domain, and what 32 bits do not hold, comes out as a feature that is not finite.
        with np.errstate(all="ignore"):
            all_levels = self._changes.levels(values)
            features = self._changes.features(all_levels, starts, before)
        if not np.isfinite(features).all():
            self._refuse_values(values, features, starts, fields)
        lasts = [end - 1 for end in ends]
        return Observed(
            [features[start:end] for start, end in zip(starts, ends, strict=True)],
            values[lasts, target].tolist(),
            all_levels[lasts, target].tolist(),
            all_levels[-1].tolist(),
        )

    def forecasts(
        self,
        outputs: Sequence[NDArray[np.float32]],
        observed: Observed,
        wanted: Wanted,
        fields: Sequence[str],
    ) -> list[Forecast]:
        """What the network's outputs, float32 (horizon * quantiles,) a series, say.

        Raises:
            InvalidArgument: a forecast is too large a number.
        """
        lasts = observed.last_values
        if (
            len(outputs) == 1
            and (values := self._changes.few_values(outputs[0], observed.last_levels[0])) is not None
        ):
            return [Forecast(wanted, wanted.pick(values), lasts[0])]
        with np.errstate(over="ignore"):
            all_values = self._changes.values(np.array(outputs), observed.last_levels)  # (S, H * Q)
        is_good = np.isfinite(all_values).all(axis=1)
        if not is_good.all():
            index = int(np.argmin(is_good))
            raise InvalidArgument(
                fields[index],
                f"expected a last value that leaves room for its forecast, found {lasts[index]}",
            )
        return list(map(Forecast, repeat(wanted), map(wanted.pick, all_values.tolist()), lasts))

    def features(self, observations: NDArray[np.float64]) -> NDArray[np.float32]:
        """What the network sees of one whole series: float64 (T, C) to float32 (T, C)."""
        return self._changes.features(self._changes.levels(observations), (0,))

    def _wanted(self, steps: int, levels: list[float]) -> Wanted:
        quantiles = self._spec.quantiles
        columns = [quantiles.index(level) for level in (_MEDIAN, *levels)]
        return Wanted(
            steps,
            levels,
            itemgetter(*(step * len(quantiles) + column for step in range(steps) for column in columns)),
        )

    def _refuse_sizes(self, series: Sequence[Observations], fields: Sequence[str], least: int) -> None:
        """Name the first series that has too few or too many observations, or an observation of another width
        than the model's.
        """
        names = [column.name for column in self._spec.columns]
        for one, field in zip(series, fields, strict=True):
            check_count(field, "observations", len(one), self._limits.observations, least=least)
            for step, values in enumerate(one):
                if len(values) != len(names):
                    raise InvalidArgument(
                        f"{field}[{step}].values",
                        f"expected {len(names)} values ({', '.join(names)}), found {len(values)}",
                    )

    def _refuse_values(
        self,
        values: NDArray[np.float64],
        features: NDArray[np.float32],
        starts: list[int],
        fields: Sequence[str],
    ) -> None:
        """Name the first value that is no number of its column's domain, or else the first whose change is
        too large.
        """
        is_log = self._changes.is_log
        wrong = ~np.isfinite(values) | (is_log & (values <= 0))
        is_change = not wrong.any()
        row, column = np.argwhere(~np.isfinite(features) if is_change else wrong)[0]
        index = int(np.searchsorted(starts, row, "right")) - 1
        path = f"{fields[index]}[{row - starts[index]}].values[{column}]"
        if is_change:
            raise InvalidArgument(
                path, f"expected a change that 32 bits can hold, found {values[row, column]}"
            )
        kind = "finite number above 0" if is_log[column] else "finite number"
        raise InvalidArgument(
            path, f"expected a {kind} for {self._spec.columns[column].name}, found {values[row, column]}"
        )
