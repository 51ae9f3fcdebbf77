"""The order of rows: a table that is newest first is never read, whatever hides its dates."""

import pytest

from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.observations import Observations, Reading, read_observations

VALUES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
STOCK = ("open", "high", "low", "close", "volume")


def _read(text: str, names: tuple[str, ...] = ("open", "close"), **reading: object) -> Observations:
    origin = Origin.of_bytes("own.csv", text.encode())
    return read_observations(origin, Reading(names, **reading))  # type: ignore[arg-type]


def _table(header: str, cells: list[str]) -> str:
    rows = [f"{given},{a:g},{b:g}" for given, (a, b) in zip(cells, VALUES, strict=True)]
    return "\n".join([f"{header},open,close", *rows]) + "\n"


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("time,session", ["9:30,2013-03-03", "9:31,2013-03-02", "9:32,2013-03-01"]),
        ("time,session", ["9:30,20130303", "9:31,20130302", "9:32,20130301"]),
        ("period,quoted on", ["1,2013-03-03", "2,2013-03-02", "3,2013-03-01"]),
        ("period,quoted on", ["1,20130303", "2,20130302", "3,20130301"]),
        ("week,quoted on", ["1,03.03.2013", "2,02.03.2013", "3,01.03.2013"]),
        ("week,unix seconds", ["1,1092960000", "2,1092873600", "3,1092787200"]),
        ("period,kurs vom", ["1,Fri 03 May 2013", "2,Thu 02 May 2013", "3,Wed 01 May 2013"]),
        ("period,n", ["1,3", "2,2", "3,1"]),
        ("seq", ["3", "2", "1"]),
        ("", ["12", "11", "10"]),
        ("n", ["3.0", "2.0", "1.0"]),
        ("n", ["20130303.0", "20130302.0", "20130301.0"]),
        ("at", ["16:00", "15:59", "9:30"]),
        ("q", ["Q2'13", "Q1'13", "Q4'12"]),
        ("months", ["2/13", "1/13", "12/12"]),
        ("left", ["130301", "130228", "130227"]),
        ("stamp", ["130301", "130228", "130227"]),
        ("Stichtag", ["130301", "130228", "130227"]),
        ("stamp", ["2013-03-03 16:00 EST", "2013-03-02 16:00 EST", "2013-03-01 16:00 EST"]),
        ("stamp", ["20130303T160000", "20130302T160000", "20130301T160000"]),
        *(
            ("kurs vom", cells)
            for cells in (
                ["Fri 03 May 2013", "Thu 02 May 2013", "Wed 01 May 2013"],
                ["2013-03-03 16:00 EST", "2013-03-02 16:00 EST", "2013-03-01 16:00 EST"],
                ["20130303T160000", "20130302T160000", "20130301T160000"],
                ["3. März 2013", "2. März 2013", "1. März 2013"],
                ["3/5/13 x", "2/5/13 x", "1/5/13 x"],
                ["2013年3月3日", "2013年3月2日", "2013年3月1日"],
                ["2013M03", "2013M02", "2013M01"],
                ["Mar 3", "Mar 2", "Mar 1"],
                ["March", "February", "January"],
                ["03-Mar-2013 close", "02-Mar-2013 close", "n/a"],
            )
        ),
    ],
)
def test_hidden_dates_are_checked_or_refused(header: str, cells: list[str]) -> None:
    text = _table(header, cells)
    with pytest.raises(TableError, match=r"^own\.csv: line \d: column .*: expected .*") as refused:
        _read(text)
    assert "turn them round" in str(refused.value) or "--oldest-first" in str(refused.value)
    assert _read(text, is_oldest_first=True) == Observations(VALUES, ())


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("time,session", ["9:30,2013-03-01", "9:30,2013-03-02", "9:30,2013-03-03"]),
        ("period,quoted on", ["1,2013-03-01", "2,2013-03-02", "3,2013-03-03"]),
        ("period,note", ["1,A-3", "2,A-2", "3,A-1"]),
        ("time,ticker", ["9:30,3M", "9:31,3M", "9:32,3M"]),
        ("date,expiry", ["2013-03-01,2013-03-15", "2013-03-02,2013-03-15", "2013-03-03,2013-03-15"]),
        ("date,days left", ["2013-03-01,3", "2013-03-02,2", "2013-03-03,1"]),
        ("date,expiry", ["2013-03-01,May 13", "2013-03-02,April 13", "2013-03-03,March 13"]),
    ],
)
def test_dates_that_rise_are_read_beside_other_columns(header: str, cells: list[str]) -> None:
    assert _read(_table(header, cells)) == Observations(VALUES, ())


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("id", ["A-3", "A-2", "A-1"]),
        ("symbol", ["GOOG", "GOOG", "GOOG"]),
        ("symbol", ["3M", "BRK.B", "X1"]),
        ("isin", ["US0378331005", "US0378331005", "US0378331005"]),
        ("contract", ["GOOG 15 Mar 2013", "GOOG 15 Mar 2013", "GOOG 15 Mar 2013"]),
        ("note", ["", "split on 3/3/2013", ""]),
        ("seq", ["1", "2", "3"]),
        ("seq", ["1000001", "1000002", "1000003"]),
        ("at", ["9:30", "15:59", "16:00"]),
        ("share", ["1/3", "2/3", "1/2"]),
        ("trades", ["30", "20", "25"]),
        ("other", ["3.5", "2.5", "1.5"]),
    ],
)
def test_other_columns_are_read_with_a_note(header: str, cells: list[str]) -> None:
    found = _read(_table(header, cells))
    assert found.values == VALUES
    assert "no column of dates was recognised" in found.notes[0]


ROW = "801.1,806.99,801.03,801.2"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [f"{day},{ROW}" for day in (20130228, 20130301, 20130304)],
            "line 1: column open: expected a value, found '20130228' and rows like it, which may be dates",
        ),
        (
            [f"{day},{ROW}" for day in (1362009600, 1362096000, 1362355200)],
            "line 1: column open: expected a value, found '1362009600' and rows like it",
        ),
        (
            [f"{ROW},{day}" for day in (20130304, 20130301, 20130228)],
            "line 1: column volume: expected a value, found '20130304' and rows like it",
        ),
        (
            [f"{101 + at},{ROW},{day}" for at, day in enumerate((20130304, 20130301, 20130228))],
            "line 2: column 6: expected rows that are oldest first, .*: all rows are newest first",
        ),
        (
            [f"{101 + at},{ROW},{4527000 - at}" for at in range(3)],
            "line 1: expected 5 values .* found 6 numbers, none of which is surely a date; .*--date-column",
        ),
        (
            [f"soon,{ROW},{4527000 - at}" for at in range(3)],
            "line 1: column 1: expected a date, such as .*, found 'soon'",
        ),
    ],
)
def test_dates_without_a_header_are_not_taken_for_values(rows: list[str], message: str) -> None:
    with pytest.raises(TableError, match=f"^own.csv: {message}"):
        _read("\n".join(rows), STOCK)


def test_dates_without_a_header_are_found_wherever_they_are() -> None:
    days = (20130228, 20130301, 20130304)
    behind = "\n".join(f"{101 + at},806.99,801.03,801.2,4527000,{day}" for at, day in enumerate(days))
    assert [row[0] for row in _read(behind, STOCK).values] == [101, 102, 103]
    # Large volumes look like Unix times.
    large = "\n".join(f"{day},{ROW},{1092873600 + at}" for at, day in enumerate(days))
    assert [row[-1] for row in _read(large, STOCK).values] == [1092873600, 1092873601, 1092873602]
    counted = "\n".join(f"{at},{ROW},{4527000 - at}" for at in range(3))
    assert len(_read(counted, STOCK, date_column="1").values) == 3
    assert len(_read("\n".join(f"{ROW},{volume}" for volume in (4527000, 99)), STOCK).values) == 2
