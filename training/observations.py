"""Reading a series from a table: numbers in the order of their dates, with gaps found, filled or refused.
Eight bytes a cell are kept, no text.
"""

import math
from array import array
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.dates import EPOCH, DateColumn, shown_date
from training.files import Row, iter_table, number
from training.fit import TrainingError

Floats = NDArray[np.float64]
Gaps = Literal["refuse", "forward", "drop"]

MISSING = frozenset({"", "-", "na", "n/a", "#n/a", "nan", "null", "none"})
DAY = 86_400_000_000
# Above this share of rows on Saturdays and Sundays, a daily series has them all.
WEEKEND_SHARE = 0.05
WEEKEND = 5
LONG_STEP = 1.5
EXAMPLE_DATE = "2013-03-25"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read.

    Attributes:
        path: a CSV file with a header.
        columns: the values of an observation.
        dates: the column that orders the rows; "": the file's order is right.
        date_format: of `datetime.strptime`; "": told by the rows.
        gaps: a missing cell is refused, is the value before, or leaves its row out.
        delimiter: "": told by the header line.
        encoding: of the file.
    """

    path: Path
    columns: tuple[str, ...]
    dates: str
    date_format: str
    gaps: Gaps
    delimiter: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Observations:
    """What was read.

    Attributes:
        values: float64 (N, columns), oldest first.
        dates: int64 (N,), microseconds since 1970, rising; empty where there is no column of them.
        left_out: rows that a missing cell left out.
        notes: what the user should know, a line each.
    """

    values: Floats
    dates: NDArray[np.int64]
    left_out: int
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Of observations."""
        return len(self.values)

    def first_since(self, date: str) -> int:
        """The first observation on that date or later.

        Raises:
            TrainingError: it is no ISO date.
        """
        try:
            found = datetime.fromisoformat(date)
        except ValueError as error:
            raise TrainingError(
                f"--held-out-from: expected a date as {EXAMPLE_DATE}, found {date!r}"
            ) from error
        naive = found if found.tzinfo is None else found.astimezone(UTC).replace(tzinfo=None)
        return int(np.searchsorted(self.dates, int((naive - EPOCH).total_seconds() * 1e6)))

    def parts(self, develop: int, held_out: int) -> list[str]:
        """From when to when each part goes; nothing where there are no dates."""
        if not len(self.dates):
            return []
        cuts = [
            ("training", 0, develop),
            ("development", develop, held_out),
            ("held out", held_out, self.count),
        ]
        spans = (
            f"{name} {shown_date(int(self.dates[start]))} to {shown_date(int(self.dates[end - 1]))}"
            for name, start, end in cuts
        )
        return ["; ".join(spans)]


def read_observations(wanted: Wanted) -> Observations:
    """All rows of the columns, in the order of their dates.

    Raises:
        TrainingError: the file, a cell or a date is wrong, or a date stands in two rows.
    """
    path, columns = wanted.path, wanted.columns
    names = (*columns, wanted.dates) if wanted.dates else columns
    numbers, lines = array("d"), array("q")
    dates = DateColumn(path, wanted.dates, wanted.date_format)
    first = None
    for row in iter_table(
        path,
        names,
        wanted.delimiter,
        wanted.encoding,
        may_be_empty=() if wanted.gaps == "refuse" else columns,
    ):
        first = first or row
        lines.append(row.line)
        for name, cell in zip(columns, row.cells, strict=False):
            numbers.append(_value(wanted, row, name, cell))
        if wanted.dates:
            dates.add(row.line, row.cells[-1])
    values = np.array(numbers).reshape(len(lines), len(columns))
    at = np.array(lines, dtype=np.int64)
    moments = np.zeros(0, np.int64)
    notes: list[str] = []
    if wanted.dates and first is not None:
        moments = np.array(dates.microseconds(first.line, first.cells[-1]), dtype=np.int64)
        order = np.argsort(moments, kind="stable")
        if (order[1:] < order[:-1]).any():
            notes.append(f"{path.name}: rows are not in the order of {wanted.dates}: sorted")
        values, at, moments = values[order], at[order], moments[order]
        _refuse_repeats(wanted, at, moments)
    before = len(values)
    values, at, moments = _without_gaps(wanted, values, at, moments, notes)
    if len(moments) > 1:
        notes.append(_calendar(wanted, at, moments))
    return Observations(values, moments, before - len(values), tuple(notes))


def _value(wanted: Wanted, row: Row, name: str, cell: str) -> float:
    """A number; NaN for a missing cell that is not refused."""
    if wanted.gaps != "refuse" and cell.lower() in MISSING:
        return math.nan
    try:
        return number(wanted.path, row, name, cell)
    except TrainingError as error:
        if cell.lower() in MISSING:
            raise TrainingError(
                f"{error}; missing cells: --gaps forward takes the value before, "
                "--gaps drop leaves the row out"
            ) from error
        raise


def _refuse_repeats(wanted: Wanted, lines: NDArray[np.int64], moments: NDArray[np.int64]) -> None:
    repeats = np.flatnonzero(moments[1:] == moments[:-1])
    if len(repeats):
        place = int(repeats[np.argmin(lines[repeats + 1])])
        raise TrainingError(
            f"{wanted.path}: line {lines[place + 1]}: column {wanted.dates}: expected each date once, "
            f"found {shown_date(int(moments[place]))} in line {lines[place]}, too"
        )


def _without_gaps(
    wanted: Wanted, values: Floats, lines: NDArray[np.int64], moments: NDArray[np.int64], notes: list[str]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Missing cells filled or their rows left out, with a note."""
    missing = np.isnan(values)
    if not missing.any():
        return values, lines, moments
    counted = Counter(wanted.columns[column] for column in np.nonzero(missing)[1].tolist())
    cells = ", ".join(f"{name} {count:,}" for name, count in counted.items())
    first = int(lines[missing.any(axis=1).argmax()])
    if wanted.gaps == "drop":
        kept = ~missing.any(axis=1)
        notes.append(
            f"{wanted.path.name}: {int((~kept).sum()):,} rows with missing cells "
            f"left out ({cells}), the first in line {first}"
        )
        return values[kept], lines[kept], moments[kept] if len(moments) else moments
    if missing[0].any():
        column = wanted.columns[int(missing[0].argmax())]
        raise TrainingError(
            f"{wanted.path}: line {lines[0]}: column {column}: "
            "expected a value in the oldest row, found none to fill it from before"
        )
    # The last row with a value, for each cell: nothing later is looked at.
    sources = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))[:, None]), axis=0)
    filled = np.take_along_axis(values, sources, axis=0)
    notes.append(
        f"{wanted.path.name}: {int(missing.sum()):,} missing cells filled "
        f"with the value before ({cells}), the first in line {first}"
    )
    return filled, lines, moments


def _calendar(wanted: Wanted, lines: NDArray[np.int64], moments: NDArray[np.int64]) -> str:
    """Which dates there are, and which there are not. A step is a row to the network, whatever the time
    between.
    """
    steps = np.diff(moments)
    usual = int(np.median(steps))
    span = (
        f"{wanted.path.name}: {len(moments):,} rows, "
        f"{shown_date(int(moments[0]))} to {shown_date(int(moments[-1]))}"
    )
    if usual == DAY and not (moments % DAY).any():
        days = moments.astype("datetime64[us]").astype("datetime64[D]")
        has_weekends = np.mean((days.astype(np.int64) + 3) % 7 >= WEEKEND) > WEEKEND_SHARE
        missed = (
            (steps // DAY - 1) if has_weekends else np.maximum(np.busday_count(days[:-1], days[1:]) - 1, 0)
        )
        kind = "days" if has_weekends else "days from Monday to Friday"
        if not missed.any():
            return f"{span}, all {kind}"
        most = int(missed.argmax())
        where = (
            f"most in a row {int(missed[most])}, after {shown_date(int(moments[most]))} (line {lines[most]})"
        )
        return f"{span}; {int(missed.sum()):,} {kind} have no row, {where}; the step over them counts as one"
    long = steps > LONG_STEP * usual
    if not long.any():
        return span
    most = int(steps.argmax())
    times = steps[most] / usual
    where = (
        f"the longest after {shown_date(int(moments[most]))} "
        f"(line {lines[most]}), {times:,.1f} times the usual one"
    )
    return f"{span}; {int(long.sum()):,} steps are longer than usual, {where}; each counts as one"
