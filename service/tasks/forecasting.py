"""Forecasting: observations to features, outputs to values with quantiles."""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain, repeat
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import ForecastSpec
from service.engine.request import Caller, Goal, Request
from service.engine.streaming import Submitter, run_all, run_one
from service.errors import InvalidArgument, shown
from service.tasks.feature_transform import FeatureTransform
from service.tasks.limits import Limits, check_count
from service.tasks.pacing import Pace
from service.tasks.states import SeriesState

_MEDIAN = 0.5

# Up to so many observations of a request lists are faster than arrays.
MAX_LISTED_OBSERVATIONS = 1000

# Observations of one series, oldest first, each of one value a column; of a long series float64 (T, C).
Observations = Sequence[Sequence[float]] | NDArray[np.float64]


class Selection(NamedTuple):
    """The steps and quantiles that a caller asks for, checked.

    Attributes:
        steps: steps ahead.
        levels: levels of the quantiles.
        pick: takes the median and the quantiles of each step out of all the model's (horizon * quantiles,).
    """

    steps: int
    levels: list[float]
    pick: Callable[[list[float]], tuple[float, ...]]


class Forecast(NamedTuple):
    """A series' forecast.

    Attributes:
        selection: what was asked for.
        numbers: of each step ahead the median and the quantiles, in the target's unit, (steps * (1 +
            levels),).
        last_value: the target's last observed value.
    """

    selection: Selection
    numbers: tuple[float, ...]
    last_value: float

    @property
    def medians(self) -> NDArray[np.float64]:
        """Medians of the steps, float64 (steps,)."""
        return np.reshape(self.numbers, (self.selection.steps, -1))[:, 0]

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """Quantiles of the steps, float64 (steps, levels)."""
        return np.reshape(self.numbers, (self.selection.steps, -1))[:, 1:]


class Observed(NamedTuple):
    """Series that have been checked. A level is f(value), f being a column's transform.

    Attributes:
        features: float32 (T, F) a series.
        last_values: the target's, (S,).
        last_levels: the target's, (S,).
        levels: levels of all columns after the last series, (C,).
    """

    features: list[NDArray[np.float32]]
    last_values: list[float]
    last_levels: list[float]
    levels: list[float]


class ForecastingTask:
    """Forecasts series with one model.

    Args:
        spec: columns, target, horizon, quantiles, scales.
        engine: runs the model.
        limits: sizes of requests.

    Attributes:
        limits: sizes of requests.
        min_observations: observations that a new series needs.
        columns: number of values of an observation, C.
        horizon: number of steps ahead that the model forecasts.
        num_quantiles: number of quantiles that it has of each.
    """

    def __init__(self, spec: ForecastSpec, engine: Submitter, limits: Limits) -> None:
        self._spec = spec
        self._engine = engine
        self.limits = limits
        self._transform = FeatureTransform(spec)
        self._widths = {len(spec.columns)}
        self._everything = self._selection(spec.horizon, spec.quantiles)
        self.min_observations = spec.least_observations
        self.columns = len(spec.columns)
        self.horizon = spec.horizon
        self.num_quantiles = len(spec.quantiles)

    async def forecast(
        self, series: Sequence[Observations], horizon: int, levels: Sequence[float], caller: Caller
    ) -> list[Forecast]:
        """Forecast after the last observation of each series.

        Args:
            series: observations of each: all as lists, or all as arrays.
            horizon: steps ahead; 0: all that the model has.
            levels: quantiles wanted; none: all that the model has.
            caller: who asks.

        Raises:
            InvalidArgument: a series, the horizon or a level is not what the model takes.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_count("series", "series", len(series), self.limits.items)
        selection = self.select(horizon, levels)
        fields = [f"series[{index}].observations" for index in range(len(series))]
        observed = await self._observe_all(series, fields)
        requests = [Request(features, Goal.LAST) for features in observed.features]
        outputs = await run_all(self._engine, requests, caller)
        return self._forecasts(outputs, observed, selection, fields)

    async def advance(
        self, before: SeriesState | None, observations: Observations, selection: Selection, caller: Caller
    ) -> tuple[Forecast, SeriesState]:
        """Forecast after further observations of one series.

        Args:
            before: state after the earlier observations; None: a new series, which needs `min_observations`.
            observations: oldest first.
            selection: what to forecast.
            caller: who asks.

        Returns:
            The forecast after the last observation, and the state there.

        Raises:
            InvalidArgument: an observation is not what the model takes.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        fields = ("observations",)
        if before is None:
            position, rows, observed = 0, None, self._observe((observations,), fields, self.min_observations)
        else:
            position, rows = before.position, before.rows
            observed = self._observe((observations,), fields, 1, before.levels)
        request = Request(observed.features[0], Goal.LAST, state=rows, keeps_state=True)
        final = await run_one(self._engine, request, caller)
        [forecast] = self._forecasts([final.output], observed, selection, fields)
        return forecast, SeriesState(position + len(observations), observed.levels, final.state)

    def select(self, horizon: int, levels: Sequence[float]) -> Selection:
        """Check which steps and quantiles are asked for.

        Raises:
            InvalidArgument: the horizon or a level is not one of the model's.
        """
        if horizon > self._spec.horizon:
            raise InvalidArgument(
                "horizon", f"expected 1..{self._spec.horizon} steps, or 0 for all, found {horizon}"
            )
        quantiles = self._spec.quantiles
        if not levels:
            is_all = horizon in (0, self._spec.horizon)
            return self._everything if is_all else self._selection(horizon, quantiles)
        # More levels than the model has repeat some, and each costs a message for every step of every series.
        check_count("quantiles", "levels", len(levels), len(quantiles))
        if unknown := [level for level in levels if level not in quantiles]:
            raise InvalidArgument("quantiles", f"expected levels among {quantiles}, found {shown(unknown)}")
        return self._selection(horizon or self._spec.horizon, list(levels))

    def features(self, observations: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return what the network sees of one whole series: float64 (T, C) to float32 (T, F)."""
        return self._transform.features(self._transform.levels(observations), (0,))

    def _selection(self, steps: int, levels: list[float]) -> Selection:
        quantiles = self._spec.quantiles
        columns = [quantiles.index(level) for level in (_MEDIAN, *levels)]
        indexes = (step * len(quantiles) + column for step in range(steps) for column in columns)
        return Selection(steps, levels, _picker(list(indexes)))

    async def _observe_all(self, series: Sequence[Observations], fields: Sequence[str]) -> Observed:
        """Check new series and compute their features; other calls run between arrays."""
        if not isinstance(series[0], np.ndarray):
            return self._observe(series, fields, self.min_observations)
        pace, parts = Pace(), []
        for one, field in zip(series, fields, strict=True):
            parts.append(self._observe((one,), (field,), self.min_observations))
            await pace.rest()
        return Observed(
            [part.features[0] for part in parts],
            [part.last_values[0] for part in parts],
            [part.last_levels[0] for part in parts],
            parts[-1].levels,
        )

    def _observe(
        self,
        series: Sequence[Observations],
        fields: Sequence[str],
        minimum: int,
        before: Sequence[float] | None = None,
    ) -> Observed:
        """Check series and compute their features.

        Args:
            series: at least one; a single one if it is an array.
            fields: path of each in the request.
            minimum: observations that each needs.
            before: levels before the first observation of the one series that goes on; None: they start.

        Raises:
            InvalidArgument: a series is not what the model takes.
        """
        counts = list(map(len, series))
        is_sized = min(counts) >= minimum and max(counts) <= self.limits.observations
        if isinstance(series[0], np.ndarray):
            if not is_sized:
                self._refuse_sizes(series, fields, minimum)
            return self._observe_arrays(series[0], counts, fields, before)
        rows = series[0] if len(series) == 1 else list(chain.from_iterable(series))
        if not is_sized or set(map(len, rows)) != self._widths:
            self._refuse_sizes(series, fields, minimum)
        target = self._transform.target
        if len(series) == 1 and (plain := self._transform.plain_features(rows, before)) is not None:
            features, levels = plain
            return Observed([features], [rows[-1][target]], [levels[target]], levels)
        return self._observe_arrays(np.array(rows, np.float64), counts, fields, before)

    def _observe_arrays(
        self,
        values: NDArray[np.float64],
        counts: list[int],
        fields: Sequence[str],
        before: Sequence[float] | None,
    ) -> Observed:
        """Compute the features of series of so many rows of (N, C) each, which come one after the other."""
        ends = list(accumulate(counts))
        starts = [0, *ends[:-1]]
        # What is outside f's domain, and what 32 bits do not hold, comes out as a feature that is not finite.
        with np.errstate(all="ignore"):
            levels = self._transform.levels(values)
            features = self._transform.features(levels, starts, before)
        if not np.isfinite(features).all():
            self._refuse_values(values, features, starts, fields)
        lasts = [end - 1 for end in ends]
        target = self._transform.target
        return Observed(
            [features[start:end] for start, end in zip(starts, ends, strict=True)],
            values[lasts, target].tolist(),
            levels[lasts, target].tolist(),
            levels[-1].tolist(),
        )

    def _forecasts(
        self,
        outputs: Sequence[NDArray[np.float32]],
        observed: Observed,
        selection: Selection,
        fields: Sequence[str],
    ) -> list[Forecast]:
        """Return the forecasts that the network's outputs, float32 (horizon * quantiles,) a series, say.

        Raises:
            InvalidArgument: a forecast is too large a number.
        """
        lasts = observed.last_values
        if len(outputs) == 1:
            plain = self._transform.plain_values(outputs[0], observed.last_levels[0])
            if plain is not None:
                return [Forecast(selection, selection.pick(plain), lasts[0])]
        with np.errstate(over="ignore"):
            values = self._transform.values(np.array(outputs), observed.last_levels)  # (S, H * Q)
        is_good = np.isfinite(values).all(axis=1)
        if not is_good.all():
            index = int(np.argmin(is_good))
            raise InvalidArgument(
                fields[index],
                f"expected a last value that leaves room for its forecast, found {lasts[index]}",
            )
        return list(map(Forecast, repeat(selection), map(selection.pick, values.tolist()), lasts))

    def _refuse_sizes(self, series: Sequence[Observations], fields: Sequence[str], minimum: int) -> None:
        """Name the first series of a wrong length, or the first observation of a wrong width."""
        for one, field in zip(series, fields, strict=True):
            check_count(field, "observations", len(one), self.limits.observations, minimum)
            self.check_widths(one, field)

    def check_widths(self, rows: Observations, field: str, first: int = 0) -> None:
        """Raise InvalidArgument unless each observation has one value a column.

        Args:
            rows: observations of one series that follow each other.
            field: path of the series in the request.
            first: index of the first of them in the series.
        """
        for step, values in enumerate(rows, first):
            if len(values) != self.columns:
                names = ", ".join(column.name for column in self._spec.columns)
                raise InvalidArgument(
                    f"{field}[{step}].values",
                    f"expected {self.columns} values ({names}), found {len(values)}",
                )

    def _refuse_values(
        self,
        values: NDArray[np.float64],
        features: NDArray[np.float32],
        starts: list[int],
        fields: Sequence[str],
    ) -> None:
        """Name the first value outside its column's domain, or else the first whose change is too large."""
        is_log = self._transform.is_log
        wrong = ~np.isfinite(values) | (is_log & (values <= 0))
        is_change = not wrong.any()
        row, place = np.argwhere(~np.isfinite(features) if is_change else wrong)[0]
        column = self._transform.layout.column_of[place] if is_change else int(place)
        index = int(np.searchsorted(starts, row, "right")) - 1
        path = f"{fields[index]}[{row - starts[index]}].values[{column}]"
        if is_change:
            raise InvalidArgument(
                path, f"expected a change that 32 bits can hold, found {values[row, column]}"
            )
        kind = "finite number above 0" if is_log[column] else "finite number"
        name = self._spec.columns[column].name
        raise InvalidArgument(path, f"expected a {kind} for {name}, found {values[row, column]}")


def _picker(indexes: list[int]) -> Callable[[list[float]], tuple[float, ...]]:
    """Return a function that takes the numbers at the indexes, at least two: a median and a quantile."""
    pick: Callable[[list[float]], tuple[float, ...]] = itemgetter(*indexes)
    return pick
