"""Reads a column of dates, all in one form, which the rows themselves tell, or the user."""

import re
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from seqserve.tables.errors import TableError
from seqserve.tables.numbers import shown

EPOCH: Final = datetime(1970, 1, 1)
ALLOW_FUTURE: Final = "--allow-future-dates"
_EXAMPLE: Final = datetime(2013, 3, 25, 16, tzinfo=UTC)
_STEP: Final = timedelta(microseconds=1)
_MOST_AHEAD: Final = timedelta(hours=14)

Reader = Callable[[str], datetime]

_TIME: Final = re.compile(
    r"(?P<date>.*?\S)(?:[ ,]+|T)(?P<hour>\d{1,2}):(?P<minute>\d\d)"
    r"(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?"
    r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?",
    re.DOTALL,
)
_QUARTER: Final = re.compile(r"(?:(\d{4})-?Q([1-4])|Q([1-4])[- /]?(\d{4}))")
_SERIAL: Final = re.compile(r"[234]\d{4}(\.\d*)?")
_SERIAL_HINT: Final = ", perhaps a spreadsheet's count of days: give the column a format of dates there"
_SHORT_YEAR: Final = re.compile(r"[/.-]13\b")
_SHORT_ISO: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")


def _by(pattern: str, cell: str) -> datetime:
    return datetime.strptime(cell, pattern)


def _by_digits(pattern: str, length: int, cell: str) -> datetime:
    if len(cell) != length or not cell.isdecimal() or not "1800" <= cell[:4] <= "2200":
        raise ValueError(cell)
    return datetime.strptime(cell, pattern)


def _iso(cell: str) -> datetime:
    if _SHORT_ISO.fullmatch(cell):
        return datetime(*map(int, cell.split("-")))  # type: ignore[arg-type]
    if cell[4:6] != "-W":
        raise ValueError(cell)
    return datetime.fromisoformat(cell)


def _quarter(cell: str) -> datetime:
    if not (found := _QUARTER.fullmatch(cell)):
        raise ValueError(cell)
    return datetime(int(found[1] or found[4]), 3 * int(found[2] or found[3]) - 2, 1)


def _unix(digits: tuple[int, int], factor: int, cell: str) -> datetime:
    whole, _, rest = cell.partition(".")
    if not (whole + rest).isdecimal() or not digits[0] <= len(whole) <= digits[1]:
        raise ValueError(cell)
    return EPOCH + timedelta(seconds=int(whole) / factor)


_DAYS: Final[dict[str, Reader]] = {
    "2013-03-25": _iso,
    "2013/03/25": partial(_by, "%Y/%m/%d"),
    "2013.03.25": partial(_by, "%Y.%m.%d"),
    "20130325": partial(_by_digits, "%Y%m%d", 8),
    "25.03.2013": partial(_by, "%d.%m.%Y"),
    "25.03.13": partial(_by, "%d.%m.%y"),
    "03/25/2013": partial(_by, "%m/%d/%Y"),
    "25/03/2013": partial(_by, "%d/%m/%Y"),
    "03/25/13": partial(_by, "%m/%d/%y"),
    "25/03/13": partial(_by, "%d/%m/%y"),
    "03-25-2013": partial(_by, "%m-%d-%Y"),
    "25-03-2013": partial(_by, "%d-%m-%Y"),
    "25-Mar-2013": partial(_by, "%d-%b-%Y"),
    "25-Mar-13": partial(_by, "%d-%b-%y"),
    "25 Mar 2013": partial(_by, "%d %b %Y"),
    "25 March 2013": partial(_by, "%d %B %Y"),
    "Mar 25, 2013": partial(_by, "%b %d, %Y"),
    "March 25, 2013": partial(_by, "%B %d, %Y"),
}
_OTHERS: Final[dict[str, Reader]] = {
    "2013-03": partial(_by, "%Y-%m"),
    "2013": partial(_by_digits, "%Y", 4),
    "201303": partial(_by_digits, "%Y%m", 6),
    "Mar 2013": partial(_by, "%b %Y"),
    "2013-Q1": _quarter,
    # Unix time in s, ms, us and ns. Nine digits of seconds begin in 1973.
    "1364169600": partial(_unix, (9, 10), 1),
    "1364169600000": partial(_unix, (12, 13), 1_000),
    "1364169600000000": partial(_unix, (15, 16), 1_000_000),
    "1364169600000000000": partial(_unix, (18, 19), 1_000_000_000),
}
_FORMS_OF_NUMBERS: Final = frozenset(form for form in (*_DAYS, *_OTHERS) if form.isdecimal())


def _with_time(read: Reader, has_zone: bool, cell: str) -> datetime:
    found = _TIME.fullmatch(cell)
    if not found or bool(found["zone"]) != has_zone:
        raise ValueError(cell)
    hour, half = int(found["hour"]), (found["half"] or "").lower()
    if half:
        if not 1 <= hour <= 12:
            raise ValueError(cell)
        hour = hour % 12 + 12 * (half == "p")
    time = timedelta(
        hours=hour,
        minutes=int(found["minute"]),
        seconds=int(found["second"] or 0),
        microseconds=int((found["fraction"] or "").ljust(6, "0")[:6]),
    )
    if int(found["minute"]) > 59 or int(found["second"] or 0) > 59 or time >= timedelta(days=1):
        raise ValueError(cell)
    return read(found["date"]) + time - _zone(found["zone"] or "")


def _zone(text: str) -> timedelta:
    text = text.strip()
    if not text or text in ("Z", "UTC", "GMT"):
        return timedelta()
    hours, minutes = int(text[1:3]), int(text[-2:])
    return (1 if text[0] == "+" else -1) * timedelta(hours=hours, minutes=minutes)


FORMS: Final[dict[str, Reader]] = {
    **_DAYS,
    **{f"{form} 16:00": partial(_with_time, read, False) for form, read in _DAYS.items()},
    **{f"{form} 16:00+00:00": partial(_with_time, read, True) for form, read in _DAYS.items()},
    **_OTHERS,
}
"""Known forms, each by the example of it that messages show. Times with a zone become UTC."""


def is_text_date(cell: str) -> bool:
    """Return whether a cell is a date in a form that no number has."""
    return any(_reads(read, cell) for form, read in FORMS.items() if form not in _FORMS_OF_NUMBERS)


def is_number_date(cell: str) -> bool:
    """Return whether a cell is a number that a column of days or of Unix times may hold."""
    return len(cell) >= 8 and any(_reads(FORMS[form], cell) for form in _FORMS_OF_NUMBERS)


def _reads(read: Reader, cell: str) -> bool:
    try:
        read(cell)
    except (ValueError, OverflowError):
        return False
    return True


class DateColumn:
    """Takes the cells of a column from the first to the last, and keeps the forms that all of them have.

    Args:
        place: File, and column, with `{}` for the number of the line, for messages.
        pattern: Form of the dates, of `datetime.strptime`; "": one of `FORMS`.
        advice: What messages add on what to do.
        now: The time, in UTC and without a zone, which no date may be after; None: any date is fine.

    Raises:
        TableError: The pattern is none that dates can be read by.
    """

    def __init__(self, place: str, pattern: str = "", advice: str = "", now: datetime | None = None) -> None:
        if pattern:
            _check_pattern(pattern)
        self._place = place
        self._advice = advice
        self._pattern = pattern
        self._readers = {pattern: partial(_by, pattern)} if pattern else dict(FORMS)
        self._read: dict[str, array[int]] = {form: array("q") for form in self._readers}
        self._count = 0
        self._now = now
        # Somewhere on Earth it is already tomorrow.
        self._limit = None if now is None else (now + _MOST_AHEAD - EPOCH) // _STEP
        self._first_future: dict[str, tuple[int, str, int]] = {}

    def add(self, line: int, cell: str) -> None:
        """Read the next cell.

        Raises:
            TableError: It is no date in a form that all cells before it have.
        """
        left: dict[str, array[int]] = {}
        for form, read in self._read.items():
            try:
                read.append((_without_zone(self._readers[form](cell)) - EPOCH) // _STEP)
            except (ValueError, OverflowError):
                continue
            left[form] = read
            if self._limit is not None and read[-1] > self._limit:
                self._first_future.setdefault(form, (line, cell, read[-1]))
        if not left:
            raise TableError(
                f"{self._at(line)}: expected {self._wanted()}, found {shown(cell)}"
                f"{_SERIAL_HINT if _SERIAL.fullmatch(cell) else ''}{self._advice}"
            )
        self._read = left
        self._count += 1

    def _at(self, line: int) -> str:
        # Titles and names of files may have braces of their own.
        return self._place.replace("{}", str(line))

    def _wanted(self) -> str:
        if self._pattern:
            return f"a date as --date-format {repr(self._pattern)[1:-1]}"
        if self._count:
            return f"a date as {' or '.join(self._read)}, as in the rows before"
        return "a date, such as 2013-03-25, 03/25/2013 or 25 Mar 2013, or --date-format"

    def readings(self) -> "list[array[int]]":
        """Return the times of all cells in microseconds since 1970, once for each way to read them.

        They are in UTC where cells have a zone.
        """
        found: list[array[int]] = []
        for read in self._read.values():
            if read not in found:
                found.append(read)
        return found

    def unclear(self, line: int, cell: str) -> TableError:
        """Return the error that says that the cells can be read in several ways.

        Args:
            line: Line of the first cell.
            cell: The first cell.
        """
        return TableError(
            f"{self._at(line)}: expected days that tell {' from '.join(self._read)}, "
            f"or --date-format, found {shown(cell)} and rows like it{self._advice}"
        )

    def microseconds(self, first_line: int, first_cell: str) -> "array[int]":
        """Return the times of all cells as `readings` does, where there is one way to read them.

        Args:
            first_line: Line of the first cell.
            first_cell: The first cell, shown where the form is not clear.

        Raises:
            TableError: The cells can be read in two forms that give other dates.
        """
        first, *others = self.readings()
        if others:
            raise self.unclear(first_line, first_cell)
        return first

    def check_past(self) -> None:
        """Check that no date is after today, wherever on Earth it was written.

        Raises:
            TableError: One is, in every form that the cells have; the text says how a year of two digits was
                read.
        """
        found = [self._first_future.get(form) for form in self._read]
        if self._now is None or found[0] is None or None in found:
            return
        line, cell, moment = found[0]
        how = ""
        if any(form_has_short_year(form) for form in self._read):
            how = ", years 00 to 68 being read as 2000 to 2068: write years with four digits"
        raise TableError(
            f"{self._at(line)}: expected dates up to today, {self._now.date().isoformat()}, "
            f"or {ALLOW_FUTURE}, found {shown(cell)}, read as {shown_date(moment)}{how}"
        )


def _check_pattern(pattern: str) -> None:
    """Check that `datetime.strptime` knows a pattern: that it reads what is written by it.

    Raises:
        TableError: It does not.
    """
    try:
        datetime.strptime(_EXAMPLE.strftime(pattern), pattern)
    except (ValueError, OverflowError, re.error) as error:
        raise TableError(
            f"--date-format: expected a form of dates as strptime has it, such as %d/%m/%Y, "
            f"found {shown(pattern)}"
        ) from error


def form_has_short_year(form: str) -> bool:
    """Return whether years of a form, an example or a pattern, have two digits."""
    return "%y" in form if "%" in form else bool(_SHORT_YEAR.search(form))


def _without_zone(date: datetime) -> datetime:
    return date if date.tzinfo is None else date.astimezone(UTC).replace(tzinfo=None)


def utc_now() -> datetime:
    """Return the time now, in UTC and without a zone, as `DateColumn` takes it."""
    return datetime.now(UTC).replace(tzinfo=None)


def shown_date(microseconds: int) -> str:
    """Format a time in microseconds since 1970: its date, with the time of day if it has one."""
    date = EPOCH + microseconds * _STEP
    return (
        date.isoformat(" ", "minutes")
        if (date.hour, date.minute, date.second) != (0, 0, 0)
        else date.date().isoformat()
    )
