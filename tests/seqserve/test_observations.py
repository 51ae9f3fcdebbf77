"""Observations from CSV: what is understood, and what is refused with row and column."""

import pytest

from seqserve.cli.observations import parse_observations
from seqserve.cli.session import UsageError

NAMES = ["open", "close"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("1,2\n3,4\n", id="values alone"),
        pytest.param("2004-08-19,1,2\n2004-08-20,3,4\n", id="dates first"),
        pytest.param("date,open,close\n2004-08-19,1,2\n2004-08-20,3,4\n", id="a header"),
        pytest.param(
            "Close, Open , Adj Close\n2,1,9\n\n4,3,9\n",
            id="a header in other order and case, with a column too many",
        ),
        pytest.param("date,open,close\n20/08/2004,1,2\n19/08/2004,3,4\n", id="dates in an unknown format"),
        pytest.param("open,close,note\n1,2,\n3,4,n/a\n", id="a column of text that is not asked for"),
    ],
)
def test_rows_are_read_from(text: str) -> None:
    assert parse_observations(text.splitlines(), NAMES) == [[1.0, 2.0], [3.0, 4.0]]


def test_without_names_every_column_of_numbers_counts() -> None:
    assert parse_observations(["date,a,note,b", "2004-08-19,1,x,2"], []) == [[1.0, 2.0]]
    assert parse_observations(["1,2,3"], []) == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the CSV holds no observations"),
        ("open,close\n", "the CSV holds no observations"),
        ("open,high\n1,2\n", "the CSV has no column close; it has open, high"),
        ("1,2,3\n", r"row 1: expected 2 values \(open, close\), found 3"),
        ("open,close\n1,2\n3,n/a\n", "row 3, column close: 'n/a' is not a finite number"),
        ("open,close\n1,nan\n", "row 2, column close: 'nan' is not a finite number"),
        ("open,close\n\n1\n", "row 3, column close: no value"),
        (
            "date,open,close\n2004-08-20,1,2\n2004-08-19,3,4\n",
            "row 3: 2004-08-19 comes after a later date; observations must be oldest first",
        ),
    ],
    ids=[
        "nothing",
        "a header alone",
        "a missing column",
        "too many values",
        "text",
        "nan",
        "a short row",
        "newest first",
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        parse_observations(text.splitlines(), NAMES)
