"""A series of observations: which columns of which file, read and cut, as features and targets by the formulas of `service.spec.ForecastSpec`.

It knows no network. The service has its own implementation of the formulas; a test holds both together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.spec import Column, ForecastSpec
from training.data import GOOG, Source
from training.files import Row, number, read_table
from training.fit import TrainingError

Floats = NDArray[np.float64]

HORIZON = 5
QUANTILES = (0.1, 0.5, 0.9)
LEAST_OBSERVATIONS = 7
HELD_OUT_SHARE = 0.3
DEVELOPMENT_SHARE = 0.15
FEWEST_OBSERVATIONS = 100
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Table:
    """Which numbers of which file.

    Attributes:
        source: a CSV file with a header.
        columns: the values of an observation, in order.
        target: the one forecast.
        prices: the columns in the target's unit, itself among them; they are fed as changes from the target's last value.
        dates: the column that orders the rows; "": the file's order is right.
        units: of columns, for people; "" where not given.
    """

    source: Source
    columns: tuple[str, ...]
    target: str
    prices: frozenset[str]
    dates: str
    units: dict[str, str]

    def choice(self) -> dict[str, str]:
        """What was chosen, for a checkpoint to remember."""
        return {"columns": ",".join(self.columns), "target": self.target, "prices": ",".join(sorted(self.prices)), "dates": self.dates}


SHIPPED_UNITS = {**dict.fromkeys(PRICES, "USD"), "volume": "shares"}


def choose(source: Source, columns: Sequence[str], target: str, prices: Sequence[str] | None, dates: str) -> Table:
    """A choice of columns, checked.

    Args:
        source: a CSV file with a header.
        columns: the values of an observation.
        target: the one forecast.
        prices: the columns in the target's unit; None: those named as prices usually are, if the target is one of them.
        dates: the column that orders the rows, or "".
    Raises:
        TrainingError: the names do not fit together.
    """
    if len(set(columns)) != len(columns) or not all(columns):
        raise TrainingError(f"--columns: expected different names, found {','.join(columns)}")
    if target not in columns:
        raise TrainingError(f"--target: expected one of --columns ({', '.join(columns)}), found {target}")
    if prices is None:
        prices = [name for name in columns if name in PRICES] if target in PRICES else [target]
    if unknown := [name for name in prices if name not in columns]:
        raise TrainingError(f"--price-columns: expected names among --columns ({', '.join(columns)}), found {', '.join(unknown)}")
    return Table(source, tuple(columns), target, frozenset({*prices, target}), dates, SHIPPED_UNITS if source is GOOG else {})


@dataclass(frozen=True, slots=True)
class History:
    """Observations, oldest first, cut by position: [0, develop) training, [develop, held_out) development (picks the epoch), [held_out, N) held out.

    Attributes:
        values: float64 (N, columns).
        develop, held_out: where these parts begin.
    """

    values: Floats
    develop: int
    held_out: int


def read_values(table: Table) -> Floats:
    """The chosen columns, oldest first: float64 (N, columns).

    Raises:
        TrainingError: a cell is no finite number, dates are no dates or repeat, or rows are too few.
    """
    path = table.source.path
    rows = read_table(path, (*table.columns, *([table.dates] if table.dates else [])))
    if len(rows) < FEWEST_OBSERVATIONS:
        raise TrainingError(f"{path}: expected at least {FEWEST_OBSERVATIONS} rows to train and hold out from, found {len(rows)}")
    if table.dates:
        rows = _by_date(path, rows, table.dates)
    return np.array([[number(path, row, name, cell) for name, cell in zip(table.columns, row.cells, strict=False)] for row in rows])


def _by_date(path: Path, rows: Sequence[Row], column: str) -> list[Row]:
    dated: dict[datetime, Row] = {}
    for row in rows:
        try:
            # Zones are dropped: one series has one zone, and only the order counts.
            date = datetime.fromisoformat(row.cells[-1]).replace(tzinfo=None)
        except ValueError as error:
            raise TrainingError(f"{path}: line {row.line}: column {column}: expected a date as 2013-03-01, found {row.cells[-1]!r}") from error
        if date in dated:
            raise TrainingError(f"{path}: line {row.line}: column {column}: {row.cells[-1]} occurs in line {dated[date].line}, too")
        dated[date] = row
    return [dated[date] for date in sorted(dated)]


def split(values: Floats) -> History:
    """The last 30 % is held out, the last 15 % of what comes before is the development part."""
    held_out = int(len(values) * (1 - HELD_OUT_SHARE))
    return History(values, int(held_out * (1 - DEVELOPMENT_SHARE)), held_out)


def describe(history: History, table: Table) -> ForecastSpec:
    """Transforms, and scales from the training part.

    Whether a column takes logarithms is asked of all rows, held-out ones too: it is a fact about the quantity, not a number fitted to it.

    Raises:
        TrainingError: a column never changes.
    """
    values = history.values
    positive = {name: bool((values[:, index] > 0).all()) for index, name in enumerate(table.columns)}
    prices_positive = all(positive[name] for name in table.prices)

    def column(name: str) -> Column:
        is_price = name in table.prices
        kind: Literal["log", "none"] = "log" if (prices_positive if is_price else positive[name]) else "none"
        reference = table.target if is_price else name
        now, before = (transformed(values[: history.develop, table.columns.index(one)], kind) for one in (name, reference))
        scale = float(np.std(now[1:] - before[:-1]))
        if not scale > 0:
            raise TrainingError(f"{table.source.path}: column {name}: expected values that change, found one change in all training rows")
        return Column(name=name, unit=table.units.get(name, ""), transform=kind, reference=reference, scale=scale)

    columns = {name: column(name) for name in table.columns}
    target = transformed(values[: history.develop, table.columns.index(table.target)], columns[table.target].transform)
    return ForecastSpec(
        columns=list(columns.values()),
        target=table.target,
        horizon=HORIZON,
        quantiles=list(QUANTILES),
        scales=[float(np.std(target[step:] - target[:-step])) for step in range(1, HORIZON + 1)],
        least_observations=LEAST_OBSERVATIONS,
    )


def transformed(values: Floats, kind: Literal["log", "none"]) -> Floats:
    """f of `ForecastSpec`, of whole arrays."""
    return np.log(values) if kind == "log" else values


def features_of(observations: Floats, forecast: ForecastSpec) -> NDArray[np.float32]:
    """A window of observations as the network's input, by the formula of `ForecastSpec`.

    Args:
        observations: float64 (T, columns), oldest first.
        forecast: transforms, references and scales.
    Returns:
        float32 (T, columns).
    """
    names = [column.name for column in forecast.columns]
    before = np.concatenate([observations[:1], observations[:-1]])  # the first observation stands in for its own predecessor
    features = [
        (transformed(observations[:, index], column.transform) - transformed(before[:, names.index(column.reference)], column.transform))
        / column.scale
        for index, column in enumerate(forecast.columns)
    ]
    return np.stack(features, axis=1).astype(np.float32)


def targets_of(history: History, forecast: ForecastSpec) -> Floats:
    """f(target s steps later) - f(target), for s = 1..horizon: float64 (N, horizon), NaN where the series has ended."""
    target = transformed(history.values[:, target_index(forecast)], forecast.column(forecast.target).transform)
    changes = np.full((len(target), forecast.horizon), np.nan)
    for step in range(1, forecast.horizon + 1):
        changes[:-step, step - 1] = target[step:] - target[:-step]
    return changes


def target_index(forecast: ForecastSpec) -> int:
    """Where the target stands in an observation."""
    return [column.name for column in forecast.columns].index(forecast.target)
