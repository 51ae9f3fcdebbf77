"""Reads a series, cuts it, and computes features and targets by the formulas of `ForecastSpec`.

It knows no network. The service has its own implementation of the formulas; a test holds both together.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seqserve.tables.dates import shown_date, utc_now
from seqserve.tables.rows import find_columns, without_unit
from service.contract.spec import Column, ForecastSpec
from training.data.calendar import cycle_features
from training.data.observations import Gaps, Wanted, read_observations
from training.data.sources import GOOG, Source
from training.errors import TrainingError

Floats = NDArray[np.float64]

HORIZON = 5
QUANTILES = (0.1, 0.5, 0.9)
LEAST_OBSERVATIONS = 7
HELD_OUT_SHARE = 0.3
DEVELOPMENT_SHARE = 0.15
FEWEST_OBSERVATIONS = 100
FEWEST_BEFORE_HELD_OUT = 70
FEWEST_HELD_OUT = 12
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True)
class Table:
    """A choice of columns of a file.

    Attributes:
        source: a CSV file with a header.
        columns: the values of an observation, in order.
        target: the one forecast.
        prices: the columns in the target's unit, itself among them; they are fed as changes from the target's
            last value.
        dates: the column that orders the rows; "": the file's order is right.
        units: of columns, for people; "" where not given.
        date_format: of `datetime.strptime`; "": told by the rows.
        gaps: what becomes of rows with missing cells.
        held_out_from: ISO date of the first observation held out; "": by share.
        allows_future: whether dates after today are accepted; always where data are read again that a run has
            accepted.
    """

    source: Source
    columns: tuple[str, ...]
    target: str
    prices: frozenset[str]
    dates: str
    units: dict[str, str]
    date_format: str = ""
    gaps: Gaps = "refuse"
    held_out_from: str = ""
    allows_future: bool = False

    def choice(self) -> dict[str, str]:
        """Return what was chosen, for a checkpoint to remember."""
        chosen = {
            "columns": ",".join(self.columns),
            "target": self.target,
            "prices": ",".join(sorted(self.prices)),
            "dates": self.dates,
        }
        return chosen | {
            "date_format": self.date_format,
            "gaps": self.gaps,
            "held_out_from": self.held_out_from,
        }


SHIPPED_UNITS = {**dict.fromkeys(PRICES, "USD"), "volume": "shares"}


def choose(
    source: Source,
    columns: Sequence[str],
    target: str,
    prices: Sequence[str] | None,
    dates: str,
    *,
    date_format: str = "",
    gaps: Gaps = "refuse",
    held_out_from: str = "",
    allows_future: bool = False,
) -> Table:
    """Check a choice of columns, and return it.

    Args:
        source: a CSV file with a header.
        columns: the values of an observation.
        target: the one forecast.
        prices: the columns in the target's unit; None: those named as prices usually are, if the target is
            one of them.
        dates: the column that orders the rows, or "".
        date_format, gaps, held_out_from, allows_future: see `Table`.
    Raises:
        TrainingError: the names do not fit together.
    """
    columns = [name.strip() for name in columns]
    if len({name.casefold() for name in columns}) != len(columns) or not all(columns):
        raise TrainingError(f"--columns: expected different names, found {','.join(columns)}")
    target = _among(columns, target, "--target")
    if prices is None:
        usual = [name for name in columns if without_unit(name).casefold() in PRICES]
        prices = usual if target in usual else [target]
    prices = [_among(columns, name, "--price-columns") for name in prices]
    dates = dates.strip()
    if not dates and (date_format or held_out_from):
        raise TrainingError(
            "--date-format and --held-out-from: expected with a --date-column alone, found none"
        )
    if find_columns(columns, dates):
        raise TrainingError(f"--columns: expected columns other than --date-column, found {dates}")
    units = SHIPPED_UNITS if source is GOOG else {}
    return Table(
        source,
        tuple(columns),
        target,
        frozenset({*prices, target}),
        dates,
        units,
        date_format,
        gaps,
        held_out_from,
        allows_future,
    )


def _among(columns: Sequence[str], name: str, option: str) -> str:
    """Return the one of the columns that a name means, as the columns have it.

    Raises:
        TrainingError: there is none, or several.
    """
    found = find_columns(columns, name)
    if len(found) != 1:
        several = f", which means {' and '.join(columns[index] for index in found)}" if found else ""
        raise TrainingError(
            f"{option}: expected one of --columns ({', '.join(columns)}), found {name}{several}"
        )
    return columns[found[0]]


@dataclass(frozen=True, slots=True)
class History:
    """Observations, oldest first, cut by position: [0, develop) training, [develop, held_out) development
    (picks the epoch), [held_out, N) held out.

    Attributes:
        values: float64 (N, columns).
        develop, held_out: where these parts begin.
    """

    values: Floats
    develop: int
    held_out: int


@dataclass(frozen=True, slots=True)
class Series:
    """A series as it was read.

    Attributes:
        history: its observations, cut.
        notes: what the user should know of it, a line each.
        dates: of the observations, as text; empty where there are none.
        moments: of the observations, int64 (N,) microseconds since 1970; empty where there are none.
    """

    history: History
    notes: tuple[str, ...]
    dates: Sequence[str]
    moments: NDArray[np.int64]

    def recent(self, table: Table, count: int) -> str:
        """Return the newest observations as a plain CSV file with a header, without gaps."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        dates = [[date] for date in ("date", *self.dates[-count:])] if self.dates else [[]] * (count + 1)
        writer.writerows(
            [*date, *row]
            for date, row in zip(dates, (table.columns, *self.history.values[-count:].tolist()), strict=True)
        )
        return file.getvalue()


def read_series(table: Table) -> Series:
    """Read the chosen columns, oldest first, cut into training, development and held-out parts.

    Raises:
        TrainingError: a cell is no finite number, dates are no dates or repeat, or rows are too few.
    """
    path = table.source.path
    wanted = Wanted(
        path,
        table.columns,
        table.dates,
        table.date_format,
        table.gaps,
        table.source.delimiter,
        table.source.encoding,
        None if table.allows_future else utc_now(),
    )
    found = read_observations(wanted)
    if found.count < FEWEST_OBSERVATIONS:
        left_out = f", after {found.left_out} rows with missing cells were left out" if found.left_out else ""
        raise TrainingError(
            f"{path}: expected at least {FEWEST_OBSERVATIONS} rows "
            f"to train and hold out from, found {found.count}{left_out}"
        )
    values, notes = found.values, found.notes
    if not table.held_out_from:
        history = split(values)
    else:
        held_out = found.first_since(table.held_out_from)
        if held_out < FEWEST_BEFORE_HELD_OUT or len(values) - held_out < FEWEST_HELD_OUT:
            raise TrainingError(
                f"--held-out-from: expected at least {FEWEST_BEFORE_HELD_OUT} rows before it "
                f"and {FEWEST_HELD_OUT} from it on, found {held_out} and {len(values) - held_out} in {path}"
            )
        history = split(values, held_out)
    return Series(
        history,
        (*notes, *found.parts(history.develop, history.held_out)),
        [shown_date(date) for date in found.dates.tolist()],
        found.dates,
    )


def read_values(table: Table) -> Floats:
    """Return the observations of `read_series`: float64 (N, columns)."""
    return read_series(table).history.values


def split(values: Floats, held_out: int | None = None) -> History:
    """Cut observations into parts.

    What comes from `held_out` on, or the last 30 %, is held out; the last 15 % of what comes before is the
    development part.
    """
    if held_out is None:
        held_out = int(len(values) * (1 - HELD_OUT_SHARE))
    return History(values, int(held_out * (1 - DEVELOPMENT_SHARE)), held_out)


def describe(history: History, table: Table) -> ForecastSpec:
    """Describe the columns: their transforms, and their scales from the training part.

    Whether a column takes logarithms is asked of all rows, held-out ones too: it is a fact about the
    quantity, not a number fitted to it.

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
        now, before = (
            transformed(values[: history.develop, table.columns.index(one)], kind)
            for one in (name, reference)
        )
        scale = float(np.std(now[1:] - before[:-1]))
        if not scale > 0:
            raise TrainingError(
                f"{table.source.path}: column {name}: "
                "expected values that change, found one change in all training rows"
            )
        return Column(
            name=name, unit=table.units.get(name, ""), transform=kind, reference=reference, scale=scale
        )

    columns = {name: column(name) for name in table.columns}
    target = transformed(
        values[: history.develop, table.columns.index(table.target)], columns[table.target].transform
    )
    scales = [float(np.std(target[step:] - target[:-step])) for step in range(1, HORIZON + 1)]
    if not all(scale > 0 for scale in scales):
        step = 1 + next(index for index, scale in enumerate(scales) if not scale > 0)
        raise TrainingError(
            f"{table.source.path}: column {table.target}: "
            f"expected values that change, found one change over {step} steps everywhere"
        )
    forecast = ForecastSpec(
        columns=list(columns.values()),
        target=table.target,
        horizon=HORIZON,
        quantiles=list(QUANTILES),
        scales=scales,
        least_observations=LEAST_OBSERVATIONS,
    )
    with np.errstate(over="ignore"):
        features = features_of(values, forecast)
    if not np.isfinite(features).all():
        row, column_index = np.argwhere(~np.isfinite(features))[0]
        raise TrainingError(
            f"{table.source.path}: observation {row + 1}: column {table.columns[column_index]}: "
            "expected changes of the size of those trained on, found one beyond all numbers"
        )
    return forecast


def transformed(values: Floats, kind: Literal["log", "none"]) -> Floats:
    """Apply f of `ForecastSpec` to whole arrays."""
    return np.log(values) if kind == "log" else values


def features_of(
    observations: Floats, forecast: ForecastSpec, before: Floats | None = None
) -> NDArray[np.float32]:
    """Compute the network's input for a window of observations, by the formula of `Column`.

    Args:
        observations: float64 (T, columns), oldest first.
        forecast: transforms, references, scales, levels and cycles.
        before: the observation before each, (T, columns); None: the one above it, the first being its own.
    Returns:
        float32 (T, features).
    """
    names = [column.name for column in forecast.columns]
    if before is None:
        before = np.concatenate([observations[:1], observations[:-1]])
    features: list[Floats] = []
    for index, column in enumerate(forecast.columns):
        if column.calendar is not None:
            features += cycle_features(observations[:, index], column.calendar)
            continue
        now = transformed(observations[:, index], column.transform)
        earlier = transformed(before[:, names.index(column.reference)], column.transform)
        features.append((now - earlier) / column.scale)
        if column.level is not None:
            features.append((now - column.level.mean) / column.level.scale)
    return np.stack(features, axis=1).astype(np.float32)


def targets_of(history: History, forecast: ForecastSpec) -> Floats:
    """Compute f(target s steps later) - f(target) for s = 1..horizon.

    Returns:
        float64 (N, horizon), NaN where the series has ended.
    """
    target = transformed(
        history.values[:, target_index(forecast)], forecast.column(forecast.target).transform
    )
    changes = np.full((len(target), forecast.horizon), np.nan)
    for step in range(1, forecast.horizon + 1):
        changes[:-step, step - 1] = target[step:] - target[:-step]
    return changes


def target_index(forecast: ForecastSpec) -> int:
    """Return the position of the target in an observation."""
    return [column.name for column in forecast.columns].index(forecast.target)
