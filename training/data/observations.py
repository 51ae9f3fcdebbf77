"""Reads a series from a table: numbers in the order of their dates, with gaps found, filled or refused.

Eight bytes a cell are kept, and no text. Rows that are not in the order of their dates are sorted, which is
noted; the command refuses them instead, since nobody reads its notes.
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

from seqserve.tables.dates import EPOCH, DateColumn, shown_date
from seqserve.tables.numbers import MISSING
from seqserve.tables.rows import Row
from training.data.files import iter_table, number, table_errors
from training.errors import TrainingError

Floats = NDArray[np.float64]
Gaps = Literal["refuse", "forward", "drop"]

DAY = 86_400_000_000
# Above this share of rows on Saturdays and Sundays, a daily series has them all.
WEEKEND_SHARE = 0.05
WEEKEND = 5
LONG_STEP = 1.5
EXAMPLE_DATE = "2013-03-25"
ADVICE = "; --date-format gives the form, --date-column '' says that the order of the rows is right"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Choice of what is read from a table.

    Attributes:
        path: A CSV file with a header.
        columns: The values of an observation.
        dates: The column that orders the rows; "": the file's order is right.
        date_format: Form of the dates, of `datetime.strptime`; "": told by the rows.
        gaps: What happens to missing cells: refused, filled with the value before, or their rows left out.
        delimiter: Character between cells; "": told by the header line.
        encoding: Name of the file's encoding.
        latest: The time now, in UTC, which no date may be after; None: any date is fine.
    """

    path: Path
    columns: tuple[str, ...]
    dates: str
    date_format: str
    gaps: Gaps
    delimiter: str
    encoding: str
    latest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Observations:
    """A series as it was read.

    Attributes:
        values: float64 (N, columns), oldest first.
        dates: int64 (N,), microseconds since 1970, rising; empty where there is no column of them.
        left_out: Number of rows that were left out because of a missing cell.
        notes: What the user should know, a line each.
    """

    values: Floats
    dates: NDArray[np.int64]
    left_out: int
    notes: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of observations."""
        return len(self.values)

    def first_since(self, date: str) -> int:
        """Return the index of the first observation on that date or later.

        Raises:
            TrainingError: It is no ISO date.
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
        """Describe from when to when each part goes; nothing where there are no dates."""
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
    """Read all rows of the columns, in the order of their dates.

    Raises:
        TrainingError: The file, a cell or a date is wrong, a date is in the future or in two rows.
    """
    columns, dates = wanted.columns, _Dates(wanted)
    numbers, lines = array("d"), array("q")
    for row in iter_table(
        wanted.path,
        (*columns, wanted.dates) if wanted.dates else columns,
        wanted.delimiter,
        wanted.encoding,
        may_be_empty=() if wanted.gaps == "refuse" else columns,
        skips_spaces=True,
    ):
        lines.append(row.line)
        for name, cell in zip(columns, row.cells, strict=False):
            numbers.append(_value(wanted, row, name, cell))
        dates.add(row)
    values = np.array(numbers).reshape(len(lines), len(columns))
    at = np.array(lines, dtype=np.int64)
    moments = dates.moments(lines)
    notes: list[str] = []
    if len(moments):
        order = np.argsort(moments, kind="stable")
        if (order[1:] < order[:-1]).any():
            notes.append(f"{wanted.path.name}: rows are not in the order of {wanted.dates}: sorted")
        values, at, moments = values[order], at[order], moments[order]
        _refuse_repeats(wanted, at, moments)
    before = len(values)
    values, at, moments = _without_gaps(wanted, values, at, moments, notes)
    if len(moments) > 1:
        notes.append(_calendar(wanted, at, moments))
    return Observations(values, moments, before - len(values), tuple(notes))


class _Dates:
    """The column that orders the rows; nothing is read where there is none."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        place = f"{wanted.path}: line {{}}: column {wanted.dates}"
        with table_errors():
            self._column = DateColumn(place, wanted.date_format, ADVICE, wanted.latest)
        self._first = ""

    def add(self, row: Row) -> None:
        if self._wanted.dates:
            self._first = self._first or row.cells[-1]
            with table_errors():
                self._column.add(row.line, row.cells[-1])

    def moments(self, lines: "array[int]") -> NDArray[np.int64]:
        """Return microseconds since 1970 of all rows, int64 (N,); empty where no column orders them.

        Raises:
            TrainingError: The form of the dates is not clear, or a date is in the future.
        """
        if not self._wanted.dates or not lines:
            return np.zeros(0, np.int64)
        with table_errors():
            self._column.check_past()
            return np.array(self._column.microseconds(lines[0], self._first), dtype=np.int64)


def _value(wanted: Wanted, row: Row, name: str, cell: str) -> float:
    """Parse a cell as a number; a missing one that is not refused is NaN."""
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
    """Fill missing cells or leave their rows out, with a note."""
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
    """Describe which dates there are, and which there are not.

    A step is a row to the network, whatever the time between.
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
