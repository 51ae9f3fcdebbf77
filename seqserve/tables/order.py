"""Finds the columns that say when each row was, and checks that the rows are oldest first.

Many downloads are newest first; their forecast would be one of the past, and look plausible. So a column that
is named like one of dates, or filled with dates, has to be understood, and has to rise.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from seqserve.tables.dates import DateColumn, is_number_date, is_text_date
from seqserve.tables.errors import TableError
from seqserve.tables.numbers import finite, shown
from seqserve.tables.rows import Row

ADVICE = (
    "; --date-column names another column, --date-format gives the form, "
    "--oldest-first says that the order of the rows is right"
)

_DATE_NAMES = frozenset(
    (
        *("date", "datetime", "dateandtime", "day", "time", "timestamp", "ts", "asof", "asofdate"),
        *("stamp", "stichtag"),
        *(
            "tradedate",
            "tradingdate",
            "tradingday",
            "opentime",
            "closetime",
            "gmttime",
            "utctime",
            "localtime",
        ),
        *("unix", "unixtime", "unixtimestamp", "epoch", "epochtime"),
        *("year", "quarter", "month", "week", "period", "datum", "zeit", "fecha", "jour", "日期", "日付"),
    )
)
_DATE_WORDS = frozenset(("date", "datetime", "day", "time", "timestamp", "unix", "epoch"))
_UNIT = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d+)?))?( ?[AaPp]\.?[Mm]\.?)?")
# A count of rows, or of days as spreadsheets have it: its order is known, though not its date.
_COUNT = re.compile(r"[+-]?\d{1,5}(\.\d*)?")
_YEAR = re.compile(r"(1[89]|2[01])\d\d")
_INTEGER = re.compile(r"[+-]?\d{1,19}(\.0*)?")
_DIGITS = re.compile(r"\d{1,19}")
_MONTHS = (
    r"jan(?:uary|uar|vier)?|feb(?:ruary|ruar)?|f[ée]vr?(?:ier)?|mar(?:ch|s|zo)?|m(?:ä|ae)rz|apr(?:il)?|avr(?:il)?"
    r"|may|mai|june?|juni?|juin|july?|juli|juil(?:let)?|aug(?:ust)?|ago(?:sto)?|ao[uû]t|sept?(?:ember)?"
    r"|o[ck]t(?:ober|obre)?|nov(?:ember|embre)?|de[cz](?:ember)?|d[ée]c(?:embre)?"
)
_MONTH_NAME = re.compile(rf"(?<![^\W\d_])(?:{_MONTHS})(?![^\W\d_])", re.IGNORECASE)
_YEAR_WITHIN = re.compile(r"(?<!\d)(?:1[89]|2[01])\d\d(?!\d)")
_DAY_WITHIN = re.compile(
    r"(?<!\d)(?:(?:1[89]|2[01])\d\d|\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:\d{4}|\d{6})?(?!\d)"
)
_MOST_WORDS = 3
_DATE_PARTS = 3
_SAMPLE = 50
_ONE_WAY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class DateColumns:
    """Columns that together say when each row was: one, or a date and its time of day.

    Attributes:
        indices: The columns.
        title: Their names, for messages.
    """

    indices: tuple[int, ...]
    title: str

    def cell(self, row: Row) -> str:
        """Return a row's date as one text."""
        return " ".join(row.cells[index] for index in self.indices)


def find_date_columns(
    titles: Sequence[str], rows: Sequence[Row], values: Collection[int], counted: Collection[int]
) -> list[DateColumns]:
    """Return the columns that say when each row was; several are each to be checked.

    Columns that are named like dates come first; where there are none, those with a more distant name.
    Those that are filled with dates are searched where no name tells, and where the named columns hold
    counts or times of day alone, which say nothing of the day.

    Args:
        titles: Names of all columns; "" for a column without a name.
        rows: The rows, all with as many cells as there are titles.
        values: Columns that are values of an observation, and so no dates.
        counted: Columns that may hold dates as mere numbers, such as Unix time, without being named so.
    """
    free = [index for index in range(len(titles)) if index not in values]
    found = [index for index in free if is_date_title(titles[index])]
    found = found or [index for index in free if has_date_word(titles[index])]
    if all(_is_plain(rows, index) for index in found):
        others = [index for index in free if index not in found]
        sample = rows[:: max(1, len(rows) // _SAMPLE)]
        filled = [index for index in others if _are_dates(sample, index)]
        found += filled or [index for index in others if index in counted and are_times(rows, index)]
    return _with_times_of_day(found, titles, rows)


def is_date_title(title: str) -> bool:
    """Return whether a column's name is one of dates."""
    return "".join(_words(title)) in _DATE_NAMES


def has_date_word(title: str) -> bool:
    """Return whether a column's name has a word for dates, among others."""
    return not _DATE_WORDS.isdisjoint(_words(title))


def check_others(
    origin: str, titles: Sequence[str], rows: Sequence[Row], values: Collection[int], dates: list[DateColumns]
) -> None:
    """Check that no other column may be one of dates that was not recognised, where no date was.

    Args:
        origin: Name of the file, for messages.
        titles: Names of all columns.
        rows: The rows.
        values: Columns that are values of an observation.
        dates: Columns that were found to say when each row was.

    Raises:
        TableError: A column holds what may be dates, or whole numbers that fall in every row.
    """
    taken = {index for columns in dates for index in columns.indices}
    if not all(_is_plain(rows, index) for index in taken):
        return
    for index in range(len(titles)):
        if index in taken or index in values:
            continue
        cells = [row.cells[index] for row in rows]
        place = f"{origin}: line {rows[0].line}: column {column_title(titles, index)}"
        if _may_be_dates(cells):
            raise TableError(
                f"{place}: expected dates in a known form, or none, found {shown(cells[0])}: "
                "name the column by --date-column and its form by --date-format, "
                "or say by --oldest-first that the order of the rows is right"
            )
        if _counts_down(cells):
            raise TableError(
                f"{place}: expected rows that are oldest first, found numbers that fall in every row, "
                "so that all rows may be newest first: turn them round, "
                "or say by --oldest-first that their order is right"
            )


def _counts_down(cells: Sequence[str]) -> bool:
    """Return whether cells are whole numbers, or several numbers with the same signs, that fall in every row.

    The first of several numbers may be the largest unit, as in 16:00, or the last one, as in 1/13.
    """
    if len(set(cells)) < len(cells) or len(cells) == 1:
        return False
    if all(map(_INTEGER.fullmatch, cells)):
        return all(after < before for before, after in pairwise(map(_whole, cells)))
    if finite(cells[0]) is not None or len({_DIGITS.sub("0", cell) for cell in cells}) > 1:
        return False
    parts = [tuple(map(int, _DIGITS.findall(cell))) for cell in cells]
    return len(parts[0]) > 1 and (
        all(after < before for before, after in pairwise(parts))
        or all(after[::-1] < before[::-1] for before, after in pairwise(parts))
    )


def _whole(cell: str) -> int:
    return int(cell.partition(".")[0])


def _may_be_dates(cells: Sequence[str]) -> bool:
    """Return whether at least half of the cells may be dates in a form that is not known.

    Cells that are all the same, as the name of a share, say nothing of the order.
    """
    return len(set(cells)) > 1 and 2 * sum(map(_may_be_date, cells)) >= len(cells)


def _may_be_date(cell: str) -> bool:
    if finite(cell) is not None:
        return False
    if _MONTH_NAME.fullmatch(cell) or _YEAR_WITHIN.search(cell) or _DAY_WITHIN.search(cell):
        return True
    parts = _DIGITS.findall(cell)
    if parts and _MONTH_NAME.search(cell):
        return True
    return len(parts) >= _DATE_PARTS and len(re.findall(r"[^\W\d_]+", cell)) <= _MOST_WORDS


def _is_plain(rows: Sequence[Row], index: int) -> bool:
    return bool(_plain_times([row.cells[index] for row in rows]))


def _words(title: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", _CAMEL.sub(" ", _UNIT.sub(" ", title)).casefold())


def _are_dates(rows: Sequence[Row], index: int) -> bool:
    """Return whether at least half of the cells are dates; then each of them has to be one."""
    cells = [row.cells[index] for row in rows]
    return 2 * sum(finite(cell) is None and is_text_date(cell) for cell in cells) >= len(cells) > 0


def are_times(rows: Sequence[Row], index: int) -> bool:
    """Return whether the cells are numbers that can be dates, and nearly all steps go one way."""
    cells = [row.cells[index] for row in rows]
    if len(cells) < 2 or not all(map(is_number_date, cells)):
        return False
    steps = [float(after) - float(before) for before, after in pairwise(cells)]
    most = max(sum(step >= 0 for step in steps), sum(step <= 0 for step in steps))
    return most >= _ONE_WAY_SHARE * len(steps)


def _with_times_of_day(found: Sequence[int], titles: Sequence[str], rows: Sequence[Row]) -> list[DateColumns]:
    """Join a date and its time of day where they have a column each."""
    times = [index for index in found if all(_TIME_OF_DAY.fullmatch(row.cells[index]) for row in rows)]
    dates = [index for index in found if index not in times]
    if len(times) == 1 and len(dates) == 1 and not any(":" in row.cells[dates[0]] for row in rows):
        joined = (dates[0], times[0])
        return [DateColumns(joined, " and ".join(column_title(titles, index) for index in joined))]
    return [DateColumns((index,), column_title(titles, index)) for index in dates or times]


def column_title(titles: Sequence[str], index: int) -> str:
    """Return what messages call a column: its name, or else its number, 1 being the first."""
    return titles[index] or str(index + 1)


def check_order(
    origin: str,
    columns: DateColumns,
    rows: Sequence[Row],
    pattern: str,
    latest: datetime | None,
) -> None:
    """Check that rows are oldest first, each at a time of its own.

    Args:
        origin: Name of the file, for messages.
        columns: What says when each row was.
        rows: The rows.
        pattern: Form of the dates; "": told by the rows.
        latest: The time now, which no date may be after; None: any date is fine.

    Raises:
        TableError: A date is not understood, not clear or in the future, or the dates do not rise.
    """
    cells = [columns.cell(row) for row in rows]
    if not pattern and (times := _plain_times(cells)):
        _check_rising(origin, columns, rows, cells, times)
        return
    column = DateColumn(f"{origin}: line {{}}: column {columns.title}", pattern, ADVICE, latest)
    for row, cell in zip(rows, cells, strict=True):
        column.add(row.line, cell)
    readings = column.readings()
    # A day and a month that could be either are no matter where the rows rise, or fall, in both readings.
    if len({_first_late(times) is None for times in readings}) > 1:
        raise column.unclear(rows[0].line, cells[0])
    _check_rising(origin, columns, rows, cells, readings[0])
    column.check_past()


def _check_rising(
    origin: str, columns: DateColumns, rows: Sequence[Row], cells: Sequence[str], times: Sequence[float]
) -> None:
    if (late := _first_late(times)) is None:
        return
    place = f"{origin}: line {rows[late].line}: column {columns.title}"
    found = f"found {cells[late]!r} after {cells[late - 1]!r} in line {rows[late - 1].line}"
    if all(after < before for before, after in pairwise(times)):
        raise TableError(
            f"{place}: expected rows that are oldest first, {found}: "
            "all rows are newest first, turn them round"
        )
    if times[late] == times[late - 1]:
        raise TableError(f"{place}: expected each date once, {found}{ADVICE}")
    raise TableError(f"{place}: expected rows that are oldest first, {found}: sort them{ADVICE}")


def _first_late(times: Sequence[float]) -> int | None:
    """Return the first row that is not after the one before it."""
    return next((at for at in range(1, len(times)) if not times[at - 1] < times[at]), None)


def _plain_times(cells: Sequence[str]) -> list[float]:
    """Return the numbers of a column that counts rows or days, or has times of day, or none."""
    if all(_TIME_OF_DAY.fullmatch(cell) for cell in cells):
        return [_seconds(cell) for cell in cells]
    if all(_COUNT.fullmatch(cell) for cell in cells) and not all(_YEAR.fullmatch(cell) for cell in cells):
        return [float(cell) for cell in cells]
    return []


def _seconds(cell: str) -> float:
    found = _TIME_OF_DAY.fullmatch(cell)
    assert found is not None
    hour = int(found[1])
    if half := (found[4] or "").strip().lower():
        hour = hour % 12 + 12 * half.startswith("p")
    return 3600 * hour + 60 * int(found[2]) + float(found[3] or 0)
