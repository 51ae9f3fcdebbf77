"""Reads a series for the command: rows of numbers, oldest first, with or without a header."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from seqserve.tables.dates import DateColumn, is_text_date
from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.numbers import MISSING, finite, parse_number, shown
from seqserve.tables.order import (
    DateColumns,
    are_times,
    check_order,
    check_others,
    column_title,
    find_date_columns,
)
from seqserve.tables.rows import Row, column_index, find_columns, fitted, iter_rows

# In a second.
MICROSECONDS = 1_000_000
_DAY_DIGITS = len("20130325")


@dataclass(frozen=True, slots=True)
class Reading:
    """Options of reading a table of observations.

    Attributes:
        names: Names of an observation's values, in the model's order; if empty, every column of numbers.
        date_column: Name or number of the column of dates; "": found by its name or its cells.
        date_format: Form of the dates, of `datetime.strptime`; "": told by the rows.
        is_oldest_first: Whether the user says that the order of the rows is right, and it is not checked.
        latest: The time now, in UTC, which no date may be after; None: any date is fine.
        delimiter: Character between cells; "": told by the first line.
        calendar: The one of `names` whose values are the seconds since 1970 of the rows' dates; "": none is.
    """

    names: Sequence[str] = ()
    date_column: str = ""
    date_format: str = ""
    is_oldest_first: bool = False
    latest: datetime | None = None
    delimiter: str = ""
    calendar: str = ""


@dataclass(frozen=True, slots=True)
class Observations:
    """A series as it was read.

    Attributes:
        values: The values of each row, oldest first, in the order of the names.
        notes: What the user should know, a line each; that the order could not be checked, for instance.
    """

    values: list[list[float]]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Body:
    """Rows of one width, and the titles of their columns, "" where there is no header.

    Attributes:
        titles: Name of each column.
        rows: The rows below the header.
        has_header: Whether there is one.
        named: The columns of the values, where the header names them.
    """

    titles: tuple[str, ...]
    rows: list[Row]
    has_header: bool
    named: list[int]


def read_observations(origin: Origin, reading: Reading) -> Observations:
    """Read a table of observations, and check the order of its rows by its dates.

    The first line is a header if it names a value, or holds neither numbers nor dates. Without a header, the
    columns must be those of the model in its order, beside a column of dates if there is one.

    Args:
        origin: What to read.
        reading: How to read it.

    Raises:
        TableError: No rows, a missing column, a cell that is no finite number, dates that are not
            understood or in the future, or rows that are not oldest first.
    """
    names = [name for name in reading.names if name != reading.calendar]
    rows = list(iter_rows(origin, reading.delimiter, names, skips_spaces=True))
    return observations_of(origin.name, rows, reading)


def observations_of(origin: str, rows: Sequence[Row], reading: Reading) -> Observations:
    """Read the rows of a table as `read_observations` does, once they are cut.

    Args:
        origin: What messages call the table.
        rows: Its rows, the header among them if there is one.
        reading: How to read it.

    Raises:
        TableError: See `read_observations`.
    """
    if reading.calendar:
        return _with_calendar(origin, rows, reading)
    body = _body(origin, rows, reading.names)
    values, dates = _layout(origin, body, reading)
    if not reading.is_oldest_first:
        for columns in dates:
            check_order(origin, columns, body.rows, reading.date_format, reading.latest)
        if not reading.date_column:
            check_others(origin, body.titles, body.rows, values, dates)
    notes = () if dates or reading.is_oldest_first else (_unchecked(origin),)
    names = reading.names or [column_title(body.titles, index) for index in values]
    return Observations(
        [
            [
                parse_number(f"{origin}: line {row.line}: column {name}", row.cells[index])
                for index, name in zip(values, names, strict=True)
            ]
            for row in body.rows
        ],
        notes,
    )


def _with_calendar(origin: str, rows: Sequence[Row], reading: Reading) -> Observations:
    """Read a table whose dates are a value, in the place of the model's column of them.

    Raises:
        TableError: See `read_observations`, or the rows have no dates, or several columns of them.
    """
    names = [name for name in reading.names if name != reading.calendar]
    own = replace(reading, names=names, calendar="")
    if rows and is_header(rows[0].cells, names) and not own.date_column:
        found = find_columns(rows[0].cells, reading.calendar)
        own = replace(own, date_column=reading.calendar if found else "")
    observed = observations_of(origin, rows, own)
    body = _body(origin, rows, names)
    _, dates = _layout(origin, body, own)
    if len(dates) != 1:
        raise TableError(
            f"{origin}: expected one column of dates, which the model takes as {reading.calendar}, "
            f"found {len(dates)}; --date-column names it"
        )
    column = DateColumn(f"{origin}: line {{}}: column {dates[0].title}", reading.date_format)
    cells = [dates[0].cell(row) for row in body.rows]
    for row, cell in zip(body.rows, cells, strict=True):
        column.add(row.line, cell)
    moments = column.microseconds(body.rows[0].line, cells[0])
    place = list(reading.names).index(reading.calendar)
    values = [
        [*row[:place], moment / MICROSECONDS, *row[place:]]
        for row, moment in zip(observed.values, moments, strict=True)
    ]
    return Observations(values, observed.notes)


def _unchecked(origin: str) -> str:
    return (
        f"{origin}: no column of dates was recognised, so the rows are taken as they stand, oldest first, "
        "which cannot be checked (--oldest-first says that it is right)"
    )


def _body(origin: str, rows: Sequence[Row], names: Sequence[str]) -> _Body:
    if not rows:
        raise TableError(f"{origin}: expected rows of numbers, found nothing")
    has_header = is_header(rows[0].cells, names)
    titles = rows[0].cells if has_header else ("",) * len(_without_blank_end(rows[0].cells))
    named = [column_index(origin, rows[0], name) for name in names] if has_header else []
    least = len(_without_blank_end(titles)) if has_header else len(titles)
    body = [
        Row(row.line, cells)
        for row in rows[has_header:]
        if (cells := fitted(origin, row, len(titles), least)) is not None
    ]
    if not body:
        raise TableError(f"{origin}: expected rows of numbers, found a header alone")
    return _Body(titles, body, has_header, named)


def is_header(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether a table's first row names a value, or holds neither numbers nor dates."""
    if any(find_columns(cells, name) for name in names):
        return True
    filled = [cell for cell in cells if cell]
    return bool(filled) and not any(
        finite(cell) is not None or cell.casefold() in MISSING or is_text_date(cell) for cell in filled
    )


def _without_blank_end(cells: tuple[str, ...]) -> tuple[str, ...]:
    last = max((index for index, cell in enumerate(cells) if cell), default=-1)
    return cells[: last + 1]


def _layout(origin: str, body: _Body, reading: Reading) -> tuple[list[int], list[DateColumns]]:
    """Return the columns of the values, and those of dates."""
    named = _named_dates(origin, body, reading)
    if body.named:
        every = range(len(body.titles))
        return body.named, named or find_date_columns(body.titles, body.rows, body.named, every)
    if reading.names:
        return _by_position(origin, body, reading, named)
    dates = named or find_date_columns(body.titles, body.rows, (), (0,))
    others = _others(body, dates)
    if body.has_header:
        others = [index for index in others if any(finite(row.cells[index]) is not None for row in body.rows)]
    return others, dates


def _named_dates(origin: str, body: _Body, reading: Reading) -> list[DateColumns]:
    """Return the column of dates that the user names; none if no column was named."""
    name = reading.date_column
    if not name:
        return []
    if name.isdecimal() and not find_columns(body.titles, name):
        index = int(name) - 1
        if not 0 <= index < len(body.titles):
            raise TableError(
                f"{origin}: --date-column: expected a name, or a number from 1 to {len(body.titles)}, "
                f"found {name}"
            )
    else:
        index = column_index(origin, Row(1, body.titles), name, "--date-column")
    return [DateColumns((index,), column_title(body.titles, index))]


def _by_position(
    origin: str, body: _Body, reading: Reading, named: list[DateColumns]
) -> tuple[list[int], list[DateColumns]]:
    """Return the layout of a table without a header: the values in the model's order, beside their dates."""
    count, width = len(reading.names), len(body.titles)
    dates = named
    if not dates and width == count:
        _check_no_dates(origin, body, reading.names)
    if not dates and width > count:
        dates = find_date_columns(body.titles, body.rows, (), range(width))
        # Volumes may look like Unix times; they do not look like days.
        if len(dates) > width - count:
            dates = [columns for columns in dates if _are_days(body.rows, columns.indices[0])] or dates
    if not dates and width == count + 1:
        if all(finite(row.cells[0]) is not None for row in body.rows):
            raise TableError(
                f"{origin}: line {body.rows[0].line}: expected {count} values ({', '.join(reading.names)}) "
                f"beside a column of dates, found {width} numbers, none of which is surely a date; "
                "name the column of dates by --date-column, or all columns in a header line"
            )
        dates = [DateColumns((0,), "1")]
    values = _others(body, dates)
    if len(values) != count:
        raise TableError(
            f"{origin}: line {body.rows[0].line}: expected {count} values ({', '.join(reading.names)}), "
            f"after a date if there is one, found {len(values)}; name the columns in a header line"
        )
    return values, dates


def _check_no_dates(origin: str, body: _Body, names: Sequence[str]) -> None:
    """Check that a table without a header does not have dates in the place of a value.

    Raises:
        TableError: The first column holds dates or Unix times, or another one holds days.
    """
    for index, name in enumerate(names):
        if are_times(body.rows, index) and (index == 0 or _are_days(body.rows, index)):
            line, cell = body.rows[0].line, body.rows[0].cells[index]
            raise TableError(
                f"{origin}: line {line}: column {name}: expected a value, found {shown(cell)} and rows like "
                f"it, which may be dates, and no column more than the {len(names)} values "
                f"({', '.join(names)}); name the columns in a header line"
            )


def _are_days(rows: Sequence[Row], index: int) -> bool:
    return all(len(row.cells[index]) == _DAY_DIGITS or finite(row.cells[index]) is None for row in rows)


def _others(body: _Body, dates: Sequence[DateColumns]) -> list[int]:
    taken = {index for columns in dates for index in columns.indices}
    return [index for index in range(len(body.titles)) if index not in taken]
