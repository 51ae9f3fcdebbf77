"""Dates: all of one form, told by the rows; what is not clear is refused."""

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.tables.dates import FORMS, DateColumn, shown_date
from seqserve.tables.errors import TableError

PATTERNS = {
    "2013-03-25": "%Y-%m-%d",
    "2013/03/25": "%Y/%m/%d",
    "2013.03.25": "%Y.%m.%d",
    "20130325": "%Y%m%d",
    "25.03.2013": "%d.%m.%Y",
    "03/25/2013": "%m/%d/%Y",
    "25/03/2013": "%d/%m/%Y",
    "25-Mar-2013": "%d-%b-%Y",
    "25 March 2013": "%d %B %Y",
    "Mar 25, 2013": "%b %d, %Y",
}


def _read(*cells: str, pattern: str = "") -> list[str]:
    column = DateColumn("own.csv: line {}: column day", pattern)
    for line, cell in enumerate(cells, 2):
        column.add(line, cell)
    return [shown_date(one) for one in column.microseconds(2, cells[0])]


@given(st.sampled_from(sorted(PATTERNS)), st.lists(st.dates(date(1900, 1, 1), date(2100, 1, 1)), min_size=1))
def test_dates_of_each_form_are_read_as_they_were_written(form: str, dates: list[date]) -> None:
    wanted = [
        *dates,
        date(2013, 3, 25),
        date(2013, 2, 25),
    ]  # days above 12, and months whose short names are not their long ones
    assert _read(*(one.strftime(PATTERNS[form]) for one in wanted)) == [one.isoformat() for one in wanted]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_example_of_each_form_has_it(form: str) -> None:
    assert FORMS[form](form).year == 2013


def test_times_are_kept_and_zones_become_utc() -> None:
    assert _read("2013-03-25T16:30", "2013-03-25 17:00:01") == ["2013-03-25 16:30", "2013-03-25 17:00"]
    # An hour that clocks show twice.
    assert _read("2013-10-27T02:30+02:00", "2013-10-27T02:30+01:00") == [
        "2013-10-27 00:30",
        "2013-10-27 01:30",
    ]


def test_form_that_is_given_counts() -> None:
    assert _read("01/02/2013", pattern="%d/%m/%Y") == ["2013-02-01"]
    with pytest.raises(
        TableError,
        match=r"own.csv: line 3: column day: expected a date as --date-format %d/%m/%Y, found '2013-02-01'",
    ):
        _read("01/02/2013", "2013-02-01", pattern="%d/%m/%Y")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("yesterday",), "line 2: column day: expected a date, such as 2013-03-25, .* found 'yesterday'"),
        (
            ("2013-03-01", "3/2/2013"),
            "line 3: column day: expected a date as 2013-03-25, as in the rows before, found '3/2/2013'",
        ),
        (("2013-03-01", "2013-03-02T12:00"), "line 3: column day"),
        (("13/02/2013", "02/13/2013"), "line 3: column day: expected a date as 25/03/2013"),
        (
            ("01/02/2013", "01/03/2013"),
            (
                "line 2: column day: expected days that tell 03/25/2013 from 25/03/2013, "
                "or --date-format, found '01/02/2013'"
            ),
        ),
        (("2013-02-30",), "line 2: column day"),
        (("41358",), "line 2: column day: .* found '41358', perhaps a spreadsheet's count of days"),
    ],
    ids=[
        "no date",
        "mixed",
        "with and without time",
        "day first and month first",
        "either",
        "no such day",
        "days of a spreadsheet",
    ],
)
def test_dates_that_are_none_mixed_or_not_clear_are_refused(cells: tuple[str, ...], message: str) -> None:
    with pytest.raises(TableError, match=message):
        _read(*cells)


def test_days_and_months_that_are_equal_need_no_telling() -> None:
    assert _read("01/01/2013", "02/02/2013") == ["2013-01-01", "2013-02-02"]


@given(
    st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)).map(
        lambda one: one.replace(second=0, microsecond=0) + timedelta(minutes=1)
    )
)
def test_shown_date_can_be_read(moment: datetime) -> None:
    assert datetime.fromisoformat(_read(moment.isoformat())[0]) == moment


@pytest.mark.parametrize("pattern", ["%d%d", "%", "%Y-%m-%", "%Q", "%Y\n%Y", "%G-%V", "%-d.%m.%Y"])
def test_pattern_that_is_none_is_refused_by_its_option(pattern: str) -> None:
    with pytest.raises(TableError) as refused:
        DateColumn("own.csv: line {}: column date", pattern)
    message = str(refused.value)
    assert message.startswith("--date-format: expected a form of dates as strptime has it, such as %d/%m/%Y")
    assert message.endswith(f"found {pattern!r}")


@pytest.mark.parametrize(
    ("pattern", "cell"),
    [
        ("%Y%m%d", "20130325"),
        ("%a %d %b %Y", "Mon 25 Mar 2013"),
        ("%Y-%m-%d %H:%M %Z", "2013-03-25 00:00 UTC"),
        ("%Y-%m-%dT%H:%M:%S.%f%z", "2013-03-25T01:00:00.0+0100"),
        ("%m/%d/%y %I:%M %p", "03/25/13 12:00 AM"),
        ("100%% of %d.%m.%Y", "100% of 25.03.2013"),
        ("%G-W%V-%u", "2013-W13-1"),
        ("%Y-%j", "2013-084"),
    ],
)
def test_patterns_of_strptime_are_known(pattern: str, cell: str) -> None:
    column = DateColumn("own.csv: line {}: column {date}", pattern)
    column.add(1, cell)
    assert shown_date(column.microseconds(1, cell)[0]) == "2013-03-25"
    with pytest.raises(
        TableError, match=r"^own\.csv: line 2: column \{date\}: expected a date as --date-for"
    ):
        column.add(2, "soon")
