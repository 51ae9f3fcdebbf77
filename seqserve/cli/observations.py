"""Reads the observations of a series from CSV, and checks each cell; no server, no terminal."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from seqserve.cli.session import UsageError

_DATE_TITLES = frozenset({"date", "datetime", "day", "time", "timestamp"})


class _Record(NamedTuple):
    """A non-empty line: the number of its last line in the file, from 1, and its cells."""

    number: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The position of the values in a record.

    Attributes:
        columns: Index and name of each value of an observation, in the model's order.
        date: Index of the date, or None.
    """

    columns: Sequence[tuple[int, str]]
    date: int | None


def parse_observations(lines: Iterable[str], names: Sequence[str]) -> list[list[float]]:
    """Parse rows of values, oldest first, in the order of `names`.

    A first line without any number is a header: columns are then matched by name, in any case and order, and
    others are ignored. Without a header, the columns must be those of the model in its order, after a date
    column if there is one.

    Args:
        lines: Lines of the CSV.
        names: Names of an observation's values; if empty, every column of numbers is used.

    Returns:
        The values of each row, in the order of `names`.

    Raises:
        UsageError: No rows, a missing column, a cell that is not a finite number, or dates out of order; the
            text names row and column.
    """
    reader = csv.reader(lines, skipinitialspace=True)
    try:
        records = [
            _Record(reader.line_num, [cell.strip() for cell in cells])
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise UsageError(f"row {reader.line_num}: not CSV: {error}") from error
    has_header = bool(records) and not any(map(_is_number, records[0].cells))
    body = records[1:] if has_header else records
    if not body:
        raise UsageError("the CSV holds no observations")
    layout = (
        _layout_by_header(records[0].cells, body[0].cells, names)
        if has_header
        else _layout_by_position(body[0], names)
    )
    _check_dates(body, layout.date)
    return [[_value(record, index, name) for index, name in layout.columns] for record in body]


def _layout_by_header(header: list[str], first: list[str], names: Sequence[str]) -> _Layout:
    titles = [title.lower() for title in header]
    date = next((index for index, title in enumerate(titles) if title in _DATE_TITLES), None)
    if not names:
        return _Layout(
            [
                (index, title)
                for index, title in enumerate(header)
                if index != date and index < len(first) and _is_number(first[index])
            ],
            date,
        )
    missing = [name for name in names if name.lower() not in titles]
    if missing:
        raise UsageError(f"the CSV has no column {', '.join(missing)}; it has {', '.join(header)}")
    return _Layout([(titles.index(name.lower()), name) for name in names], date)


def _layout_by_position(first: _Record, names: Sequence[str]) -> _Layout:
    date = None if _is_number(first.cells[0]) else 0
    indices = range(0 if date is None else 1, len(first.cells))
    if names and len(indices) != len(names):
        raise UsageError(
            f"row {first.number}: expected {len(names)} values ({', '.join(names)}), found {len(indices)}"
        )
    return _Layout(list(zip(indices, names or [str(index + 1) for index in indices], strict=True)), date)


def _value(record: _Record, index: int, name: str) -> float:
    if index >= len(record.cells):
        raise UsageError(f"row {record.number}, column {name}: no value")
    try:
        value = float(record.cells[index])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(
            f"row {record.number}, column {name}: {record.cells[index]!r} is not a finite number"
        )
    return value


def _check_dates(records: Sequence[_Record], index: int | None) -> None:
    """Reject dates that are out of order.

    Many downloads are newest first; their forecast would be of the past, and look plausible.
    """
    if index is None:
        return
    try:
        dates = [datetime.fromisoformat(record.cells[index]) for record in records]
        back = next((late for late in range(1, len(dates)) if dates[late] < dates[late - 1]), None)
    except (ValueError, IndexError, TypeError):
        return  # not ISO dates: the order cannot be checked, and nothing else uses the dates
    if back is not None:
        raise UsageError(
            f"row {records[back].number}: {records[back].cells[index]} comes after a later date; "
            "observations must be oldest first"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
