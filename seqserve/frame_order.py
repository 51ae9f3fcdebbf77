"""Checks that the rows of a table that a caller passes are oldest first, as far as the table tells.

Many tables are newest first; their forecast would be of the past, and look plausible. Columns and an index of
dates have to rise. Where a table has no dates, the numbers of its rows have to rise.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from seqserve.arguments import refusal
from seqserve.errors import WrongType, WrongValue
from seqserve.tables.dates import DateColumn, is_number_date, is_text_date
from seqserve.tables.errors import TableError
from seqserve.tables.order import has_date_word, is_date_title

_SAMPLE = 50
_FALLING_SHARE = 0.9
_LEAVE_OUT = "sort the rows oldest first, then leave it out, or reset_index(drop=True)"


class Labels(NamedTuple):
    """A column or an index that may say when each row was.

    Attributes:
        where: What messages call it.
        name: Its name, or None.
        values: Its value in each row.
    """

    where: str
    name: object
    values: list[Any]


def may_tell_order(name: object, values: list[Any]) -> bool:
    """Return whether a column is one of dates, or was the index of a table.

    It is one of dates by its name, or by values that are all dates. Numbers that can be dates, such as Unix
    time, take a name that has a word for dates.
    """
    if _is_title(name) or _is_index(name):
        return True
    sample = values[:: max(1, len(values) // _SAMPLE)]
    if not sample:
        return False
    if all(map(_is_number, sample)):
        return isinstance(name, str) and has_date_word(name) and _are_number_dates(values)
    is_text = isinstance(sample[0], str)
    return all(isinstance(each, str) and is_text_date(each) if is_text else _is_date(each) for each in sample)


def check_oldest_first(field: str, labels: Sequence[Labels]) -> None:
    """Refuse a table whose rows are not oldest first, or not each at a time of its own.

    Several columns of dates, such as a day and a time, may each stand still where another one rises. Row
    numbers count only where there are no dates, since sorting by date leaves them in any order.

    Args:
        field: Name of the field, for errors.
        labels: All that may say when each row was.

    Raises:
        WrongType: Dates of a column cannot be compared.
        WrongValue: Dates are not understood, not clear, repeated or do not rise, or row numbers do not rise.
    """
    told = [each for each in labels if len(each.values) > 1]
    dates = [each for each in told if not _are_row_numbers(each)]
    moments = [_rising(field, each) for each in dates]
    if not dates:
        for each in told:
            _check_row_numbers(field, each)
        return
    for row in range(1, len(moments[0])):
        if all(each[row] == each[row - 1] for each in moments):
            what = f"expected each date once in {dates[0].where}"
            found = f"found {dates[0].values[row]!s:.40} in row {row} and in the row before"
            raise refusal(
                WrongValue, field, f"{what}, {found}; pass the rows of one series, each at its own time"
            )


def _are_row_numbers(labels: Labels) -> bool:
    if _is_title(labels.name) or not all(map(_is_number, labels.values)):
        return False
    return not _are_number_dates(labels.values)


def _check_row_numbers(field: str, labels: Labels) -> None:
    """Refuse row numbers that do not rise.

    Those of a filtered table have gaps. Those of tables put one after another start again from 0.
    """
    numbers = labels.values
    late = [row for row in range(1, len(numbers)) if not numbers[row - 1] <= numbers[row]]
    if not late or (late[0] > 1 and all(numbers[row] == 0 for row in late)):
        return
    falls = sum(after < before for before, after in pairwise(numbers))
    if falls >= _FALLING_SHARE * (len(numbers) - 1):
        found = f"found row numbers that fall from {numbers[0]} to {numbers[-1]} in {labels.where}"
    else:
        row = late[0]
        found = (
            f"found row numbers that do not rise in {labels.where}: "
            f"{numbers[row]} in row {row} after {numbers[row - 1]}"
        )
    hint = "sort the rows oldest first, then reset_index(drop=True)"
    raise refusal(WrongValue, field, f"expected observations oldest first, {found}; {hint}")


def _rising(field: str, labels: Labels) -> Sequence[Any]:
    """Return the dates in a form that compares; refuse those that fall, and what cannot be compared."""
    readings = _readings(field, labels)
    try:
        falls = [_first_fall(moments) for moments in readings]
    except TypeError as error:
        what = f"expected dates of one kind in {labels.where}, found some that cannot be compared"
        raise refusal(WrongType, field, what) from error
    values = labels.values
    if None in falls and set(falls) != {None}:
        what = f"expected dates in {labels.where} whose day and month are clear, found {values[0]!s:.40}"
        raise refusal(WrongValue, field, f"{what}; pass dates or ISO text, such as 2013-03-25")
    if (row := falls[0]) is not None:
        what = f"expected dates that rise (oldest first) in {labels.where}"
        found = f"found {values[row]!s:.40} in row {row} after {values[row - 1]!s:.40}"
        raise refusal(WrongValue, field, f"{what}, {found}; sort the rows by date")
    return readings[0]


def _first_fall(moments: Sequence[Any]) -> int | None:
    return next((row for row in range(1, len(moments)) if moments[row] < moments[row - 1]), None)


def _readings(field: str, labels: Labels) -> Sequence[Sequence[Any]]:
    """Return the dates, once for each way to read them: a day and a month in text may be either."""
    values = labels.values
    if not all(isinstance(value, str) for value in values):
        return [[_moment(field, labels.where, row, value) for row, value in enumerate(values)]]
    try:
        return [[datetime.fromisoformat(value) for value in values]]
    except ValueError:
        column = DateColumn("{}")
    for row, value in enumerate(values):
        try:
            column.add(row, value.strip())
        except TableError:
            raise _unread(field, labels.where, row, value) from None
    return column.readings()


def _moment(field: str, where: str, row: int, value: Any) -> Any:
    """Return a date (or its ISO text, or a number such as seconds since 1970) as something that compares."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    is_moment = (_is_number(moment) and not isinstance(moment, bool)) or _is_date(moment)
    if not is_moment or moment != moment:  # noqa: PLR0124 - NaN and NaT differ from themselves
        raise _unread(field, where, row, value)
    return moment


def _unread(field: str, where: str, row: int, value: object) -> WrongValue:
    what = f"expected dates (in a known form, or values that compare) in {where}"
    return refusal(WrongValue, field, f"{what}, found {value!s:.40} in row {row}; {_LEAVE_OUT}")


def _is_title(name: object) -> bool:
    return isinstance(name, str) and is_date_title(name)


def _is_index(name: object) -> bool:
    """Return whether reset_index() or itertuples() gave a column its name."""
    return isinstance(name, str) and name.strip().lower() == "index"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _is_date(value: Any) -> bool:
    return all(hasattr(value, part) for part in ("year", "month", "day"))


def _are_number_dates(values: Sequence[Any]) -> bool:
    """Return whether all numbers can be dates, such as Unix time or 20130325."""
    return all(is_number_date(f"{value:.0f}") for value in values)
