"""Tables that are not oldest first, or do not tell, are refused, and those that are in order are read."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seqserve import WrongValue
from seqserve.frames import Frame, ModelColumns, in_order, read_observations

COLUMNS = ModelColumns("stock", 2, ("open", "close", "volume"))


def _read(table: Any) -> list[list[float]]:
    found = read_observations("observations", table)
    return in_order("observations", found, COLUMNS) if isinstance(found, Frame) else found


def _table(index: Any = None, **columns: list[Any]) -> pd.DataFrame:
    """Return a table of the model's columns and others, whose values count the rows."""
    size = len(index if index is not None else next(iter(columns.values())))
    counts = [float(row) for row in range(size)]
    return pd.DataFrame({**dict.fromkeys(COLUMNS.names, counts), **columns}, index=index)


def _pandas_rows(table: pd.DataFrame) -> list[Any]:
    return [row for _, row in table.iterrows()]


WEEK = [datetime(2024, 1, 29, 16) + timedelta(days=day) for day in range(10)]
UNIX = [int(day.timestamp()) for day in WEEK]
US_DATES = [f"{day:%m/%d/%Y}" for day in WEEK]
NEWEST_FIRST: dict[str, tuple[Any, str]] = {
    "rows of pandas": (_pandas_rows(_table(WEEK[::-1])), "dates that rise .* the index"),
    "rows of pandas without names": (
        _pandas_rows(pd.DataFrame(np.ones((10, 3)), index=WEEK[::-1])),
        "dates that rise .* the index",
    ),
    "rows of pandas by number": (_pandas_rows(_table(range(9, -1, -1))), "row numbers that fall from 9 to 0"),
    "rows of pandas, one without a label": (
        [*_pandas_rows(_table(WEEK[:2])), pd.Series(dict.fromkeys(COLUMNS.names, 1.0))],
        "found None in row 2",
    ),
    "itertuples": (list(_table(WEEK[::-1]).itertuples()), "dates that rise .* column Index"),
    "row numbers that nearly fall": (
        _table([9, 8, 7, 6, 5, 4, 3, 2, 0, 1]),
        "found row numbers that do not rise in the index: 8 in row 1 after 9; .*then reset_index",
    ),
    "row numbers that fall but once": (
        _table([*range(20, 10, -1), 10, 10]),
        "row numbers that fall from 20 to 10",
    ),
    "row numbers that are shuffled": (
        _table([3, 0, 4, 1, 2]),
        "do not rise in the index: 0 in row 1 after 3",
    ),
    "two rows turned round": (_table([1, 0]), "row numbers that fall from 1 to 0"),
    "tables that are each turned round": (_table([2, 1, 0, 2, 1, 0]), "row numbers that do not rise"),
    "row numbers in a column": (
        _table(WEEK).reset_index(drop=True)[::-1].reset_index(),
        "row numbers that fall",
    ),
    "Unix time with one twice": (_table([*UNIX[:0:-1], UNIX[1]]), "dates that rise .* the index"),
    "Unix time as floats": (_table([float(each) for each in UNIX[::-1]]), "dates that rise .* the index"),
    "Unix time by a name with a word": (
        _table(time_ms=[1000 * each for each in UNIX[::-1]]),
        "column time_ms",
    ),
    "one date in the index": (_table([WEEK[0]] * 10), "expected each date once in the index"),
    "one date in a column": (_table(date=[WEEK[0]] * 10), "expected each date once in column date"),
    "two series by turns": (_table([*WEEK[:1] * 2, *WEEK[1:2] * 2]), "each date once .* in row 1 and in"),
    "Unix time twice": (_table([*UNIX, UNIX[-1]]), "expected each date once in the index"),
    "other titles": (_table(**{"Trade Date": US_DATES[::-1]}), "dates that rise .* column Trade Date"),
    "a title in another language": (
        _table(Datum=[f"{day:%d.%m.%Y}" for day in WEEK[::-1]]),
        "found 06.02.2024 in row 1 after 07.02.2024",
    ),
    "dates in text without a title": (_table(x=US_DATES[::-1]), "dates that rise .* column x"),
    "days and months that are not clear": (
        _table(date=["01/02/2024", "02/01/2024"]),
        "whose day and month are clear, found 01/02/2024",
    ),
    "labels of no kind": (
        _table(list("abc")),
        "the index, found a in row 0; sort the rows oldest first, then",
    ),
    "another column": (
        _table(WEEK, change=UNIX),
        "found also change; sort the rows oldest first, then leave it",
    ),
}


@pytest.mark.parametrize(("table", "message"), NEWEST_FIRST.values(), ids=NEWEST_FIRST.keys())
def test_rows_that_may_not_be_oldest_first_are_refused(table: Any, message: str) -> None:
    with pytest.raises(WrongValue, match=message):
        _read(table)


OLDEST_FIRST: dict[str, Any] = {
    "rows of pandas": _pandas_rows(_table(WEEK)),
    "rows of pandas without names": _pandas_rows(pd.DataFrame(np.arange(10).repeat(3).reshape(10, 3), WEEK)),
    "rows of pandas by number": _pandas_rows(_table(range(10))),
    "rows of pandas without labels": [
        pd.Series(dict.fromkeys(COLUMNS.names, float(row))) for row in range(10)
    ],
    "rows of pandas with one label": [each.rename(0) for each in _pandas_rows(_table(range(10)))],
    "itertuples": list(_table(WEEK).itertuples()),
    "row numbers with gaps": _table([1, 2, 3, 5, 8, 13, 21, 34, 55, 89]),
    "tables one after another": _table([0, 1, 2, 0, 1, 2, 3, 0, 0, 0]),
    "rows of one table, then another": _table([*range(90, 98), 0, 1]),
    "row numbers of a table sorted by date": _table(list(range(9, -1, -1)), date=WEEK),
    "row numbers in a column beside dates": _table(index=range(10), date=WEEK)[:].reset_index(),
    "Unix time": _table(UNIX),
    "several times of one day": _table([WEEK[0] + timedelta(minutes=minute) for minute in range(10)]),
    "a day beside the moment": _table(
        [WEEK[0] + timedelta(minutes=at) for at in range(10)], day=[WEEK[0].date()] * 10
    ),
    "other titles": _table(**{"Trade Date": US_DATES}),
    "a title in another language": _table(Datum=[f"{day:%d.%m.%Y}" for day in WEEK]),
    "dates in text without a title": _table(x=US_DATES),
    "days and months in either order": _table(
        date=[f"0{day}/0{day}/2024" for day in range(1, 10)] + ["10/10/2024"]
    ),
}


@pytest.mark.parametrize("table", OLDEST_FIRST.values(), ids=OLDEST_FIRST.keys())
def test_rows_that_are_oldest_first_are_read(table: Any) -> None:
    assert _read(table) == [[float(row)] * 3 for row in range(10)]


def test_a_single_row_needs_no_date() -> None:
    assert _read(_pandas_rows(_table(["today"]))) == [[0.0] * 3]
