"""A series of the command: what is understood, and what is refused with line and column, never forecast."""

import re
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.observations import Observations, Reading, read_observations

NAMES = ("open", "close")
NOW = datetime(2020, 6, 1, 12)
VALUES = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


def _read(text: str | bytes, encoding: str = "utf-8", **reading: object) -> Observations:
    data = text if isinstance(text, bytes) else text.encode()
    wanted: dict[str, object] = {"names": NAMES, "latest": NOW} | reading
    return read_observations(Origin.of_bytes("own.csv", data, encoding), Reading(**wanted))  # type: ignore[arg-type]


def _table(dates: list[str], header: str = "date,open,close") -> str:
    rows = [f'"{day}",{a},{b}' for day, (a, b) in zip(dates, VALUES, strict=False)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("2004-08-19,1,2\n2004-08-20,3,4\n2004-08-21,5,6\n", id="dates first"),
        pytest.param("1092873600,1,2\n1092960000,3,4\n1093046400,5,6\n", id="Unix time first"),
        pytest.param("1,2,2004-08-19\n3,4,2004-08-20\n5,6,2004-08-21\n", id="dates last"),
        pytest.param("date,open,close\n2004-08-19,1,2\n2004-08-20,3,4\n2004-08-21,5,6\n", id="a header"),
        pytest.param(
            "Close, Open , Adj Close,Day\n2,1,9,2004-08-19\n\n4,3,9,2004-08-20\n6,5,9,2004-08-21\n",
            id="a header in other order and case, with a column too many",
        ),
        pytest.param(
            "Date;Open (USD);Close [USD];;\n19.08.2004;1;2;;\n20.08.2004;3;4\n21.08.2004;5;6;;\n;;;;\n",
            id="units, semicolons and empty columns and rows at the end",
        ),
        pytest.param("date\topen\tclose\n2004\t1\t2\n2005\t3\t4\n2006\t5\t6\n", id="tabs, and years"),
        pytest.param("\ufeffopen,close,date\n1,2,2004\n3,4,2005\n5,6,2006\n", id="a byte-order mark"),
        pytest.param(
            "<DATE>,<TIME>,open,close\n2004.08.19,16:00,1,2\n2004.08.19,16:01,3,4\n2004.08.20,9:00,5,6\n",
            id="a date and its time in columns of their own",
        ),
        pytest.param("time,open,close\n9:30,1,2\n9:31,3,4\n10:00,5,6\n", id="times of a day"),
        pytest.param(
            "Date,open,close\n38218,1,2\n38219,3,4\n38222,5,6\n", id="days as a spreadsheet counts them"
        ),
        pytest.param("date,open,close,note\n2004,1,2,\n2005,3,4,n/a\n2006,5,6,x\n", id="a column of text"),
        pytest.param(
            _table(["01/02/2013", "02/02/2013", "03/02/2013"]), id="days or months that rise either way"
        ),
        pytest.param(
            _table(["2013-10-27T02:30+02:00", "2013-10-27T02:00+01:00", "2013-10-27T03:00+01:00"]),
            id="an hour that clocks show twice, with zones",
        ),
    ],
)
def test_rows_whose_dates_rise_are_read(text: str) -> None:
    assert _read(text) == Observations(VALUES, ())


FALLING = {
    "2004-08-19": "%Y-%m-%d",
    "08/19/2004": "%m/%d/%Y",
    "19/08/2004": "%d/%m/%Y",
    "08/19/04": "%m/%d/%y",
    "19.08.2004": "%d.%m.%Y",
    "19-Aug-2004": "%d-%b-%Y",
    "Aug 19, 2004": "%b %d, %Y",
    "20040819": "%Y%m%d",
    "2004-08-19 16:00:00+00:00": "%Y-%m-%d %H:%M:%S+00:00",
    "08/19/2004 4:00 PM": "%m/%d/%Y 4:00 PM",
    "seconds": "%s",
    "milliseconds": "%s000",
    "microseconds": "%s000000",
    "nanoseconds": "%s000000000",
}
HEADERS = (
    "date,open,close",
    "trade_date,open,close",
    "Date/Time,Open,Close",
    "Timestamp (UTC),open,close",
    "unix,open,close",
    "tradeDate,OPEN,CLOSE",
    "\ufeffdate,open,close",
    "Unnamed: 0,open,close",
    ",open,close",
    "",
)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("form", FALLING.values(), ids=FALLING)
def test_rows_that_are_newest_first_are_refused_whatever_their_dates_look_like(
    form: str, header: str
) -> None:
    days = [datetime(2004, 8, day) for day in (19, 18, 17)]
    text = _table([day.strftime(form) for day in days], header)
    with pytest.raises(
        TableError, match=r"^own\.csv: line \d: column .*: all rows are newest first, turn them round$"
    ):
        _read(text)


@given(
    st.sampled_from(sorted(FALLING.values())),
    st.sampled_from(HEADERS),
    st.lists(st.dates(date(1980, 1, 1), date(2020, 1, 1)), min_size=3, max_size=3),
)
def test_rows_are_read_only_if_they_rise(form: str, header: str, days: list[date]) -> None:
    text = _table([datetime(day.year, day.month, day.day).strftime(form) for day in days], header)
    try:
        found = _read(text)
    except TableError:
        return
    # Numbers in a column of an unknown name that go up and down may be anything: that is noted.
    assert found.notes or days[0] < days[1] < days[2]
    assert found.values == VALUES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected rows of numbers, found nothing"),
        ("open,close\n", "expected rows of numbers, found a header alone"),
        ("open,high\n1,2\n", "line 1: expected a column close, found no such column among open, high"),
        (
            "# from a shop\nopen,close\n1,2\n",
            "line 1: expected a column open, found no such column among # from a",
        ),
        (
            "date,open,close,close\n2004,1,2,3\n",
            "line 1: expected a column close, found 2 columns of that name",
        ),
        ("1,2,3,4\n", r"line 1: expected 2 values \(open, close\), after a date if there is one, found 4"),
        ("open,close\n1,2\n3,n/a\n", "line 3: column close: expected a finite number, found 'n/a'"),
        ("open,close\n1,nan\n", "line 2: column close: expected a finite number, found 'nan'"),
        ("open,close\n1,1_000\n", "line 2: column close: expected a finite number, found '1_000'"),
        (
            'open,close\n1,"1,234.5"\n',
            "line 2: column close: expected a number with a decimal point and no other",
        ),
        (
            "open;close\n1;1,5\n",
            "line 2: column close: expected a number with a decimal point and no other signs",
        ),
        (
            "open,close\n1,$2\n",
            "line 2: column close: expected a number with a decimal point and no other signs",
        ),
        (
            "open,close\n1,2 %\n",
            "line 2: column close: expected a number with a decimal point and no other signs",
        ),
        (
            "open,close\n1,\u22122\n",
            "line 2: column close: expected a number with a decimal point and no other",
        ),
        (
            "open,close\n1,(2)\n",
            "line 2: column close: expected a number with a decimal point and no other signs",
        ),
        ("open,close\n1,1e200\n", "line 2: column close: expected a number between"),
        ("open,close\n\n1\n", "line 3: expected 2 cells, found 1"),
        (
            "date,open,close\n2004,1,2\nTotal,1,2\n",
            "line 3: column date: expected a date as 2013, as in the rows",
        ),
        (
            "date,open,close\n2004,1,2\ndate,open,close\n",
            "line 3: column date: expected a date as 2013, as in",
        ),
        (
            "date,open,close\n2004-08-19,1,2\nn/a,3,4\n2004-08-18,5,6\n",
            "line 3: column date: expected a date as",
        ),
        (
            "when,open,close\n2004-08-19,1,2\nn/a,3,4\n2004-08-18,5,6\n",
            "line 3: column when: expected a date as",
        ),
        ("price_date,open,close\nsoon,1,2\n", "line 2: column price_date: expected a date, such as .* found"),
        (
            "date,open,close\nsoon,1,2\n",
            "line 2: column date: expected a date, such as .* found 'soon'; --date-col",
        ),
        (
            _table(["02/01/2013", "01/02/2013"]),
            "line 2: column date: expected days that tell 03/25/2013 from",
        ),
        (_table(["2004-08-19", "2004-08-19"]), "line 3: column date: expected each date once"),
        (
            _table(["2004", "2006", "2005"]),
            "line 4: column date: expected rows that are oldest first, .*: sort them",
        ),
        (_table(["2013-10-27 02:30", "2013-10-27 02:00", "2013-10-27 03:00"]), "line 3: .*--oldest-first"),
        ('open,close\n1,"2\n', "line 2: expected a CSV row to begin here"),
        ("open,close\n1,2\0\n", "line 2: expected text, found a zero byte"),
        ("open,close\n1,é\n".encode("cp1252"), "line 2, byte 13: expected UTF-8 text, .* --encoding cp1252"),
        ("open,close\n1,2\n".encode("utf-16"), "line 1, byte 0: expected UTF-8 text, .* --encoding utf-16"),
        ("n/a,n/a\n1,2\n", "line 1: column open: expected a finite number, found 'n/a'"),
    ],
)
def test_what_is_not_understood_is_refused_with_line_and_column(text: str | bytes, message: str) -> None:
    with pytest.raises(TableError, match=f"^own.csv: {message}"):
        _read(text)


@pytest.mark.parametrize(
    ("dates", "found"),
    [
        (["2020-06-01", "2020-06-03"], "line 3: .* found '2020-06-03', read as 2020-06-03$"),
        (
            ["03/25/62", "03/26/62"],
            "line 2: .* found '03/25/62', read as 2062-03-25, years 00 to 68 being read as",
        ),
        (["25.03.62 9:00", "26.03.62 9:00"], "line 2: .* read as 2062-03-25 09:00, years 00 to 68"),
        (["2021", "2022"], "line 2: .* found '2021', read as 2021-01-01$"),
        (["4102444800", "4102531200"], "line 2: .* read as 2100-01-01$"),
    ],
)
def test_dates_after_today_are_refused_unless_allowed(dates: list[str], found: str) -> None:
    text = _table(dates)
    with pytest.raises(TableError, match=f"^own.csv: {found}"):
        _read(text)
    assert _read(text, latest=None).values == VALUES[:2]


@pytest.mark.parametrize("offset", [-12, 14])
def test_today_of_any_zone_is_no_future(offset: int) -> None:
    there = NOW + timedelta(hours=offset)
    assert _read(_table([f"{there:%Y-%m-%d %H:%M}"])).values == VALUES[:1]


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n5,6\n",
        "\ufeff1,2\n3,4\n5,6\n",
        "open,close\n1,2\n3,4\n5,6\n",
        "note,open,close\na,1,2\nb,3,4\nc,5,6\n",
    ],
)
def test_order_that_cannot_be_checked_is_noted(text: str) -> None:
    found = _read(text)
    assert (found.values, len(found.notes)) == (VALUES, 1)
    assert "own.csv: no column of dates was recognised" in found.notes[0]
    assert _read(text, is_oldest_first=True) == Observations(VALUES, ())


@pytest.mark.parametrize("header", HEADERS)
def test_order_that_the_user_states_is_not_checked(header: str) -> None:
    assert (
        _read(_table(["2004-08-20", "no date", "2062-01-01"], header), is_oldest_first=True).values == VALUES
    )


def test_column_and_form_that_the_user_names_count() -> None:
    text = "date,open,close,sent\nx,1,2,01/02/2013\ny,3,4,01/03/2013\nz,5,6,01/04/2013\n"
    for column in ("sent", "SENT", "4"):
        assert _read(text, date_column=column, date_format="%d/%m/%Y").values == VALUES
    with pytest.raises(TableError, match="column sent: expected a date as --date-format %Y"):
        _read(text, date_column="sent", date_format="%Y")
    with pytest.raises(TableError, match="--date-column: expected a name, or a number from 1 to 4, found 5"):
        _read(text, date_column="5")
    with pytest.raises(
        TableError, match="--date-column: expected a column day, found no such column among d"
    ):
        _read(text, date_column="day")


def test_every_column_that_is_named_like_a_date_is_checked() -> None:
    rows = "unix,date,open,close\n1092960000,2004-08-19,1,2\n1092873600,2004-08-20,3,4\n"
    with pytest.raises(TableError, match=r"column unix: .* newest first"):
        _read(rows)
    assert _read(rows, date_column="date").values == VALUES[:2]


def test_other_encodings_are_read_when_they_are_named() -> None:
    for encoding in ("utf-16", "cp1252", "utf-8-sig"):
        assert _read("dáte,open,close\n2004,1,2\n".encode(encoding), encoding).values == VALUES[:1]


def test_without_names_every_column_of_numbers_counts() -> None:
    assert _read("date,a,note,b\n2004-08-19,1,x,2\n", names=()).values == [[1.0, 2.0]]
    assert _read("1,2,3\n", names=()).values == [[1.0, 2.0, 3.0]]
    with pytest.raises(TableError, match="line 2: column b: expected a finite number, found 'n/a'"):
        _read("a,b\n1,n/a\n1,2\n", names=())


@given(st.binary() | st.text().map(str.encode), st.booleans(), st.sampled_from(["", "date", "2"]))
def test_any_bytes_are_read_or_refused_in_one_line(data: bytes, has_header: bool, date_column: str) -> None:
    try:
        found = _read((b"date,open,close\n" if has_header else b"") + data, date_column=date_column)
    except TableError as refused:
        message = str(refused)
    else:
        message = ""
    if message:
        assert re.fullmatch(r"own\.csv: .*: .*|own\.csv: expected .*", message)
        return
    assert found.values
    assert all(len(row) == len(NAMES) for row in found.values)
