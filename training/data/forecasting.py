"""A series as the recipe `forecast` sees it: what was chosen of it, its description, features and targets."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import Column, ColumnLevel, Cycle, ForecastSpec
from training.data.calendar import seconds_of
from training.data.series import Floats, History, Series, Table, features_of, targets_of, transformed
from training.errors import TrainingError

Transform = Literal["log", "none"]
FEWEST_OBSERVATIONS = 7
MAX_HORIZON = 1000
# Rows of the training part for each step ahead and for each row of a window.
ROWS_A_STEP = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """What is forecast, and what the network sees.

    Attributes:
        horizon: steps ahead.
        quantiles: levels in ascending order, 0.5 among them.
        window: rows that the network is trained to look back over.
        transform: of the target and of the columns in its unit.
        has_levels: the network sees the level of each column beside its change.
        cycles: those of the calendar that it sees.
        has_lags: its head sees the last values of the target, as many as a window has; it needs them all.
    """

    horizon: int
    quantiles: tuple[float, ...]
    window: int
    transform: Transform
    has_levels: bool
    cycles: tuple[Cycle, ...]
    has_lags: bool


def parse_quantiles(option: str) -> tuple[float, ...]:
    """Return the levels of `--quantiles`.

    Raises:
        TrainingError: they are no rising levels between 0 and 1 with 0.5 and others among them.
    """
    try:
        levels = tuple(float(part) for part in option.split(","))
    except ValueError:
        levels = ()
    is_rising = all(low < high for low, high in pairwise(levels))
    if not (levels and is_rising and 0 < levels[0] < 0.5 < levels[-1] < 1 and 0.5 in levels):
        raise TrainingError(
            "--quantiles: expected rising levels between 0 and 1 with 0.5 and one on each side of it, "
            f"such as 0.1,0.5,0.9, found {option!r}"
        )
    return levels


def check_horizon(horizon: int, history: History) -> None:
    """Check that every part holds enough rows for so many steps ahead.

    Raises:
        TrainingError: one does not.
    """
    parts = {
        "development": history.held_out - history.develop,
        "held-out": len(history.values) - history.held_out,
    }
    most = min(MAX_HORIZON, history.develop // ROWS_A_STEP, min(parts.values()) // 2)
    if horizon > most:
        raise TrainingError(
            f"--horizon: expected 1..{most} steps for {history.develop} rows of training and "
            + ", ".join(f"{count} {name}" for name, count in parts.items())
            + f" rows, found {horizon}"
        )


def can_take_logarithms(history: History, table: Table) -> bool:
    """Return whether the columns in the target's unit are positive, held-out rows too.

    It is a fact about the quantity, not a number fitted to it.
    """
    return all(bool((history.values[:, table.columns.index(name)] > 0).all()) for name in table.prices)


def with_calendar(series: Series) -> History:
    """Return the observations with the seconds since 1970 as the last column: float64 (N, columns + 1)."""
    history = series.history
    return replace(history, values=np.column_stack([history.values, seconds_of(series.moments)]))


def describe_forecast(history: History, table: Table, choice: Choice) -> ForecastSpec:
    """Describe the columns and the target; scales and means are those of the training part.

    Args:
        history: its observations, with the calendar's column last where cycles are chosen.
        table: the choice of columns.
        choice: what is forecast.

    Raises:
        TrainingError: a column never changes in the training part, or the rows are too few.
    """
    check_horizon(choice.horizon, history)
    columns = [_column(history, table, choice, name) for name in table.columns]
    if choice.cycles:
        columns.append(
            Column(
                name=table.dates,
                unit="s since 1970",
                transform="none",
                reference=table.dates,
                scale=1.0,
                calendar=list(choice.cycles),
            )
        )
    kind = columns[table.columns.index(table.target)].transform
    target = transformed(history.values[: history.develop, table.columns.index(table.target)], kind)
    scales = [float(np.std(target[step:] - target[:-step])) for step in range(1, choice.horizon + 1)]
    if not min(scales) > 0:
        raise TrainingError(
            f"{table.source.path}: column {table.target}: expected values that change, "
            f"found one change over {scales.index(min(scales)) + 1} steps everywhere"
        )
    return ForecastSpec(
        columns=columns,
        target=table.target,
        horizon=choice.horizon,
        quantiles=list(choice.quantiles),
        scales=scales,
        least_observations=choice.window if choice.has_lags else FEWEST_OBSERVATIONS,
    )


def _column(history: History, table: Table, choice: Choice, name: str) -> Column:
    """Describe one column of the table."""
    whole = history.values[:, table.columns.index(name)]
    is_log = choice.transform == "log" and bool((whole > 0).all())
    kind: Transform = "log" if is_log else "none"
    reference = table.target if name in table.prices else name
    now = transformed(whole[: history.develop], kind)
    before = transformed(history.values[: history.develop, table.columns.index(reference)], kind)
    scale, deviation = float(np.std(now[1:] - before[:-1])), float(np.std(now))
    if not (scale > 0 and deviation > 0):
        raise TrainingError(
            f"{table.source.path}: column {name}: "
            "expected values that change, found one change in all training rows"
        )
    level = ColumnLevel(mean=float(np.mean(now)), scale=deviation) if choice.has_levels else None
    return Column(
        name=name,
        unit=table.units.get(name, ""),
        transform=kind,
        reference=reference,
        scale=scale,
        level=level,
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Features and targets of a whole series.

    Attributes:
        history: its observations, and where its parts begin.
        forecast: its description.
        features: float32 (N, F), of each row after the one before it.
        first: float32 (N, F), of each row as the first of a window.
        targets: float32 (N, horizon), in units of the scales; NaN where the series has ended.
    """

    history: History
    forecast: ForecastSpec
    features: NDArray[np.float32]
    first: NDArray[np.float32]
    targets: NDArray[np.float32]

    @property
    def target_level(self) -> int:
        """Return the index of the feature that is the target's level; -1 where there is none."""
        place = 0
        for column in self.forecast.columns:
            if column.name == self.forecast.target:
                return place + 1 if column.level is not None else -1
            place += column.num_features
        raise AssertionError("the target is a column")

    def windows(self, days: NDArray[np.int64], length: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the features of the windows that end with the rows `days`.

        Args:
            days: rows, (B,).
            length: rows of a window; those that begin before the series are shorter.

        Returns:
            float32 (B, length, F), and int64 (B,) rows of each; what lies behind its end means nothing.
        """
        lengths = np.minimum(length, days + 1)
        rows = np.minimum((days - lengths + 1)[:, None] + np.arange(length), days[:, None])
        features = self.features[rows]
        features[:, 0] = self.first[rows[:, 0]]
        return features, lengths

    def values(self, days: NDArray[np.int64], outputs: Floats) -> Floats:
        """Return outputs of the network as quantiles in the target's unit, rising: (D, horizon, levels)."""
        kind = self.forecast.column(self.forecast.target).transform
        last = transformed(self.target[days], kind)[:, None, None]
        moved = last + outputs * np.array(self.forecast.scales)[:, None]
        # Quantiles that cross are put in order, as the service does.
        return np.sort(np.exp(moved) if kind == "log" else moved, axis=2)

    def future(self, days: NDArray[np.int64]) -> Floats:
        """Return what came after the rows: float64 (D, horizon), NaN past the end."""
        padded = np.concatenate([self.target, np.full(self.forecast.horizon, np.nan)])
        found: Floats = padded[days[:, None] + np.arange(1, self.forecast.horizon + 1)]
        return found

    @property
    def target(self) -> Floats:
        """The target's values, (N,)."""
        names = [column.name for column in self.forecast.columns]
        target: Floats = self.history.values[:, names.index(self.forecast.target)]
        return target


def prepare(history: History, forecast: ForecastSpec) -> Prepared:
    """Compute features and targets of a whole series.

    Raises:
        TrainingError: a feature is beyond the numbers of 32 bits.
    """
    with np.errstate(over="ignore"):
        features = features_of(history.values, forecast)
        first = features_of(history.values, forecast, before=history.values)
    if not np.isfinite(features).all():
        row = int(np.argwhere(~np.isfinite(features))[0][0])
        raise TrainingError(
            f"observation {row + 1}: expected values of the size of those trained on, "
            "found one beyond all numbers"
        )
    targets = (targets_of(history, forecast) / forecast.scales).astype(np.float32)
    return Prepared(history, forecast, features, first, targets)
