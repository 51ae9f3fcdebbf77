"""A series from a table: order, gaps, calendar, and what is refused."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import problem_of, random_walk
from training.data.observations import Gaps, Observations, Wanted, read_observations
from training.data.series import choose, describe, read_series, read_values
from training.data.sources import own_data
from training.errors import TrainingError


def _read(
    folder: Path, text: str, gaps: Gaps = "refuse", dates: str = "date", columns: tuple[str, ...] = ("x", "y")
) -> Observations:
    path = folder / "own.csv"
    path.write_text(text)
    return read_observations(Wanted(path, columns, dates, "", gaps, "", "utf-8"))


GAPPY = "date,x,y\n2013-03-04,1,10\n2013-03-06,,30\n2013-03-05,2,NaN\n2013-03-07,4,40\n"


def test_missing_cells_are_filled_from_before_in_the_order_of_dates(tmp_path: Path) -> None:
    found = _read(tmp_path, GAPPY, "forward")
    assert found.values.tolist() == [[1, 10], [2, 10], [2, 30], [4, 40]]
    assert found.notes[0] == "own.csv: rows are not in the order of date: sorted"
    assert (
        found.notes[1]
        == "own.csv: 2 missing cells filled with the value before (y 1, x 1), the first in line 4"
    )


def test_rows_with_missing_cells_are_left_out(tmp_path: Path) -> None:
    found = _read(tmp_path, GAPPY, "drop")
    assert (found.values.tolist(), found.left_out) == ([[1, 10], [4, 40]], 2)
    assert "2 rows with missing cells left out (y 1, x 1), the first in line 4" in found.notes[1]
    assert len(found.dates) == 2


def test_missing_cells_are_refused_unless_told_otherwise(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"own.csv: line 3: column x: expected a value, found an empty cell"
    ):
        _read(tmp_path, GAPPY)
    with pytest.raises(
        TrainingError,
        match=(
            r"own.csv: line 2: column y: expected a finite number, "
            r"found 'n/a'; missing cells: --gaps forward"
        ),
    ):
        _read(tmp_path, "date,x,y\n2013-03-04,1,n/a\n")


def test_nothing_before_the_first_value_is_made_up(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"line 3: column y: expected a value in the oldest row, found none"
    ):
        _read(tmp_path, "date,x,y\n2013-03-05,1,2\n2013-03-04,1,\n", "forward")


@pytest.mark.parametrize("gaps", ["forward", "drop"])
def test_infinity_and_words_are_no_gaps(tmp_path: Path, gaps: Gaps) -> None:
    for cell in ("inf", "closed"):
        with pytest.raises(
            TrainingError, match=f"line 2: column x: expected a finite number, found '{cell}'"
        ):
            _read(tmp_path, f"date,x,y\n2013-03-04,{cell},1\n", gaps)


def test_date_in_two_rows_is_refused_with_both(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"line 4: column date: expected each date once, found 2013-03-04 in line 2, too"
    ):
        _read(tmp_path, "date,x,y\n2013-03-04,1,1\n2013-03-05,1,1\n2013-03-04,1,1\n")


def _days(*days: str) -> str:
    return "date,x,y\n" + "".join(f"{day},{index},1\n" for index, day in enumerate(days))


@pytest.mark.parametrize(
    ("days", "note"),
    [
        (
            ("2013-03-07", "2013-03-08", "2013-03-11", "2013-03-12"),
            "4 rows, 2013-03-07 to 2013-03-12, all days from Monday to Friday",
        ),
        (
            ("2013-03-05", "2013-03-06", "2013-03-07", "2013-03-08", "2013-03-13"),
            "2 days from Monday to Friday have no row, most in a row 2, after 2013-03-08 (line 5)",
        ),
        (
            ("2013-03-08", "2013-03-09", "2013-03-10", "2013-03-12"),
            "1 days have no row, most in a row 1, after 2013-03-10 (line 4)",
        ),
        (
            ("2013-01", "2013-02", "2013-03", "2013-06"),
            "1 steps are longer than usual, the longest after 2013-03-01 (line 4)",
        ),
        (("2013", "2014", "2015"), "3 rows, 2013-01-01 to 2015-01-01"),
    ],
    ids=["weekends alone", "days without a row", "a series with weekends", "months", "years"],
)
def test_dates_without_a_row_are_said(tmp_path: Path, days: tuple[str, ...], note: str) -> None:
    assert note in _read(tmp_path, _days(*days)).notes[-1]


def test_file_without_dates_keeps_its_order(tmp_path: Path) -> None:
    found = _read(tmp_path, "y;x\n1;5\n2;4\n", dates="")
    assert (found.values.tolist(), found.dates.tolist(), found.notes) == ([[5, 1], [4, 2]], [], ())


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (
            ("2013-03-04", "9013-03-05"),
            "line 3: column date: expected dates up to today, .*, found '9013-03-05'",
        ),
        (
            ("03/25/67", "03/26/67"),
            "line 2: .* or --allow-future-dates, found '03/25/67', read as 2067-03-25, years 00 to 68",
        ),
    ],
)
def test_dates_after_today_are_refused_unless_allowed(
    tmp_path: Path, days: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(_days(*days))
    wanted = Wanted(path, ("x", "y"), "date", "", "refuse", "", "utf-8", latest=datetime(2026, 1, 1))
    with pytest.raises(TrainingError, match=message):
        read_observations(wanted)
    assert read_observations(replace(wanted, latest=None)).count == 2


def _series_file(folder: Path, spoil: str = "", rows: int = 150) -> Path:
    path = folder / "own.csv"
    days = np.datetime64("2013-01-01") + np.arange(rows)
    values = random_walk(rows)[:, 3]
    path.write_text(
        "date,close\n"
        + "".join(f"{day},{value!r}\n" for day, value in zip(days, values.tolist(), strict=True))
        + spoil
    )
    return path


def test_held_out_part_begins_at_the_date_given(tmp_path: Path) -> None:
    table = choose(
        own_data(_series_file(tmp_path)), ("close",), "close", None, "date", held_out_from="2013-05-01"
    )
    series = read_series(table)
    assert series.history.held_out == 120
    assert series.notes[-1] == (
        "training 2013-01-01 to 2013-04-12; development 2013-04-13 to 2013-04-30; "
        "held out 2013-05-01 to 2013-05-30"
    )


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ("2013-05-29", "12 from it on, found 148 and 2 in"),
        ("2013-02-01", "70 rows before it"),
        ("May", "--held-out-from: expected a date as"),
    ],
)
def test_held_out_part_that_leaves_too_little_is_refused(tmp_path: Path, since: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_series(
            choose(own_data(_series_file(tmp_path)), ("close",), "close", None, "date", held_out_from=since)
        )


def test_rows_left_out_count_as_none(tmp_path: Path) -> None:
    path = _series_file(tmp_path, "2014-01-01,\n2014-01-02,-\n", rows=99)
    with pytest.raises(
        TrainingError,
        match=(
            "at least 100 rows to train and hold out from, "
            "found 99, after 2 rows with missing cells were left out"
        ),
    ):
        read_values(choose(own_data(path), ("close",), "close", None, "date", gaps="drop"))


def test_recent_observations_are_written_in_a_plain_form(tmp_path: Path) -> None:
    path = _series_file(tmp_path)
    path.write_text(path.read_text().replace(",", ";"))
    table = choose(own_data(path), ("close",), "close", None, "date")
    lines = read_series(table).recent(table, 2).splitlines()
    assert [line.split(",")[0] for line in lines] == ["date", "2013-05-29", "2013-05-30"]
    assert float(lines[2].split(",")[1]) == read_values(table)[-1, 0]


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        (
            [1.0, 2.0] * 75,
            ("close",),
            "column close: expected values that change, found one change over 2 steps everywhere",
        ),
        (
            [(index * 7 % 11 + 1) * 1e-100 for index in range(135)] + [1e99, 1.0] * 10,
            ("close", "zero"),
            "observation 136: column close: expected changes of the size",
        ),
    ],
    ids=["a period of two", "beyond all numbers"],
)
def test_series_that_no_scale_fits_is_refused(
    tmp_path: Path, values: list[float], columns: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "close,zero\n"
        + "".join(f"{value!r},{-(index % 7) * 1e-100!r}\n" for index, value in enumerate(values))
    )
    table = choose(own_data(path), columns, "close", columns, "")
    with pytest.raises(TrainingError, match=message):
        describe(read_series(table).history, table)


CELLS = st.one_of(
    st.floats(width=32).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["", "NA", "1,5", "x", "inf"]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 119), CELLS), max_size=4),
    st.sampled_from(["refuse", "forward", "drop"]),
    st.booleans(),
)
def test_any_table_of_numbers_is_read_or_refused_with_line_and_column(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, str]], gaps: Gaps, repeats: bool
) -> None:
    cells = [[repr(value) for value in row] for row in random_walk(120)[:, [3, 4]].tolist()]
    for column, row, cell in changes:
        cells[row][column] = cell
    dates = [
        str(np.datetime64("2013-01-01") + (index // 2 if repeats and index == 7 else index))
        for index in range(120)
    ]
    path = tmp_path_factory.getbasetemp() / "any-series.csv"
    path.write_text(
        "date,close,volume\n"
        + "".join(f'{day},"{a}","{b}"\n' for day, (a, b) in zip(dates, cells, strict=True))
    )
    table = choose(own_data(path), ("close", "volume"), "close", None, "date", gaps=gaps)
    problem = problem_of(lambda: read_series(table))
    if problem is not None:
        assert re.fullmatch(
            r".*any-series.csv: line \d+: column (date|close|volume): expected .*, found .*", problem
        )
        return
    assert not repeats
    assert np.isfinite(read_values(table)).all()
    left = {cells[row][column] for column, row, _ in changes}
    assert not left & {"1,5", "x", "inf", "-inf"}
    assert gaps != "refuse" or not left & {"", "NA", "nan"}


@pytest.mark.parametrize("pattern", ["%d%d", "%", "%Q"])
def test_form_of_dates_that_is_none_is_refused_by_its_option(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text("date,x\n2013-03-04,1\n")
    with pytest.raises(
        TrainingError, match=f"^--date-format: expected a form of dates .* found '{pattern}'$"
    ):
        read_observations(Wanted(path, ("x",), "date", pattern, "refuse", "", "utf-8"))
