"""A column's dates: all in one form, which the rows themselves tell, or the user."""

from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from training.fit import TrainingError

EPOCH = datetime(1970, 1, 1)
_STEP = timedelta(microseconds=1)
_DATE_LENGTH = len("2013-03-01")

Reader = Callable[[str], datetime]


def _iso(*, has_time: bool, has_zone: bool) -> Reader:
    def read(cell: str) -> datetime:
        date = datetime.fromisoformat(cell)
        if (len(cell) > _DATE_LENGTH, date.tzinfo is not None) != (has_time, has_zone) or cell[4:5] != "-":
            raise ValueError(cell)
        return date

    return read


def _by(pattern: str, length: int = 0) -> Reader:
    def read(cell: str) -> datetime:
        if length and len(cell) != length:
            raise ValueError(cell)
        return datetime.strptime(cell, pattern)

    return read


# An example of each form, as messages show it.
FORMS: dict[str, Reader] = {
    "2013-03-25": _iso(has_time=False, has_zone=False),
    "2013-03-25 16:00": _iso(has_time=True, has_zone=False),
    "2013-03-25 16:00+00:00": _iso(has_time=True, has_zone=True),
    "2013-03": _by("%Y-%m"),
    "2013": _by("%Y"),
    "20130325": _by("%Y%m%d", length=8),
    "2013/03/25": _by("%Y/%m/%d"),
    "2013.03.25": _by("%Y.%m.%d"),
    "25.03.2013": _by("%d.%m.%Y"),
    "25.03.2013 16:00": _by("%d.%m.%Y %H:%M"),
    "03/25/2013": _by("%m/%d/%Y"),
    "25/03/2013": _by("%d/%m/%Y"),
    "03/25/2013 16:00": _by("%m/%d/%Y %H:%M"),
    "25/03/2013 16:00": _by("%d/%m/%Y %H:%M"),
    "03/25/13": _by("%m/%d/%y"),
    "25/03/13": _by("%d/%m/%y"),
    "03-25-2013": _by("%m-%d-%Y"),
    "25-03-2013": _by("%d-%m-%Y"),
    "25-Mar-2013": _by("%d-%b-%Y"),
    "25-Mar-13": _by("%d-%b-%y"),
    "25 Mar 2013": _by("%d %b %Y"),
    "25 March 2013": _by("%d %B %Y"),
    "Mar 25, 2013": _by("%b %d, %Y"),
    "March 25, 2013": _by("%B %d, %Y"),
    "Mar 2013": _by("%b %Y"),
}


class DateColumn:
    """Takes the cells of a column from the first to the last. Forms that a cell does not have are left out;
    one has to be left for all cells.

    Args:
        path: of the file, for messages.
        column: its name, for messages.
        pattern: of `datetime.strptime`; "": one of `FORMS`.
    """

    def __init__(self, path: Path, column: str, pattern: str = "") -> None:
        self._place = f"{path}: line {{}}: column {column}: "
        self._readers = {pattern: _by(pattern)} if pattern else dict(FORMS)
        self._pattern = pattern
        self._read: dict[str, array[int]] = {form: array("q") for form in self._readers}
        self._count = 0

    def add(self, line: int, cell: str) -> None:
        """The next cell.

        Raises:
            TrainingError: it is no date in a form that all cells before it have.
        """
        left: dict[str, array[int]] = {}
        for form, read in self._read.items():
            try:
                read.append((_without_zone(self._readers[form](cell)) - EPOCH) // _STEP)
            except (ValueError, OverflowError):
                continue
            left[form] = read
        if not left:
            if self._pattern:
                wanted = f"a date as --date-format {self._pattern}"
            elif self._count:
                wanted = f"a date as {' or '.join(self._read)}, as in the rows before"
            else:
                wanted = "a date, such as 2013-03-25, 03/25/2013 or 25 Mar 2013, or --date-format"
            raise TrainingError(f"{self._place.format(line)}expected {wanted}, found {cell!r}")
        self._read = left
        self._count += 1

    def microseconds(self, first_line: int, first_cell: str) -> "array[int]":
        """Since 1970, of all cells; zones are turned into UTC.

        Args:
            first_line, first_cell: what to show where the form is not clear.
        Raises:
            TrainingError: cells can be read in two forms that give other dates.
        """
        first, *others = self._read.values()
        if any(other != first for other in others):
            raise TrainingError(
                f"{self._place.format(first_line)}expected days that tell {' from '.join(self._read)}, "
                f"or --date-format, found {first_cell!r} and rows like it"
            )
        return first


def _without_zone(date: datetime) -> datetime:
    return date if date.tzinfo is None else date.astimezone(UTC).replace(tzinfo=None)


def shown_date(microseconds: int) -> str:
    """A date, with its time where it has one."""
    date = EPOCH + microseconds * _STEP
    return (
        date.isoformat(" ", "minutes")
        if (date.hour, date.minute, date.second) != (0, 0, 0)
        else date.date().isoformat()
    )
