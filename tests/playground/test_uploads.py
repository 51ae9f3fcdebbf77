"""Files that are dropped on a page: bounds, and refusals as sentences in the page's own words."""

import pytest

from seqserve.playground.uploads import (
    MAX_FILE_BYTES,
    MAX_LINES,
    FileRefusedError,
    HowToRead,
    Line,
    check_size,
    read_lines,
    read_series,
    read_tables,
    short_name,
)

NAMES = ("open", "close")


def test_lines_have_numbers_and_no_line_ends() -> None:
    assert read_lines("a.txt", "\ufeffgood\r\n\r\nbad".encode()) == [
        Line(1, "good"),
        Line(2, ""),
        Line(3, "bad"),
    ]


def test_a_file_of_too_many_lines_is_refused_with_the_limit() -> None:
    with pytest.raises(FileRefusedError, match=f"a.txt: expected at most {MAX_LINES:,} lines, found more"):
        read_lines("a.txt", b"x\n" * (MAX_LINES + 1))


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(FileRefusedError, match="expected a file of at most 8 MiB, found 8"):
        check_size("a.csv", MAX_FILE_BYTES + 1)
    with pytest.raises(FileRefusedError, match="found an empty one"):
        read_lines("a.txt", b"")


def test_columns_are_matched_by_name_in_any_order() -> None:
    found = read_series(
        "a.csv", b"date,Close,volume,OPEN\n2024-01-01,2,9,1\n2024-01-02,4,9,3\n", NAMES, HowToRead()
    )
    assert found.values == [[1.0, 2.0], [3.0, 4.0]]
    assert found.notes == ()


def test_a_missing_column_is_named() -> None:
    with pytest.raises(
        FileRefusedError,
        match=r"a\.csv: line 1: expected a column open, found no such column among date, close",
    ):
        read_series("a.csv", b"date,close\n2024-01-01,2\n", NAMES, HowToRead())


def test_rows_that_are_newest_first_are_refused_until_the_user_says_that_they_are_right() -> None:
    data = b"date,open,close\n2024-01-02,3,4\n2024-01-03,5,6\n2024-01-01,1,2\n"
    with pytest.raises(FileRefusedError, match="“Rows are oldest first”") as refused:
        read_series("a.csv", data, NAMES, HowToRead())
    assert "--" not in str(refused.value)
    assert read_series("a.csv", data, NAMES, HowToRead(is_oldest_first=True)).values == [
        [3.0, 4.0],
        [5.0, 6.0],
        [1.0, 2.0],
    ]


def test_packed_data_and_bytes_that_are_no_text_are_refused_in_the_words_of_the_page() -> None:
    with pytest.raises(FileRefusedError, match=r"a\.xlsx: expected plain text, found a zip archive"):
        read_lines("a.xlsx", b"PK\x03\x04rest")
    with pytest.raises(FileRefusedError, match="say “Encoding” cp1252"):
        read_lines("a.txt", b"caf\xe9\n")
    assert read_lines("a.txt", b"caf\xe9\n", "cp1252") == [Line(1, "café")]


def test_a_column_tells_sequences_apart() -> None:
    data = b"who,x\na,1\nb,2\na,3\n"
    found = read_tables("a.csv", data, ("x",), HowToRead(is_oldest_first=True, sequence_column="who"))
    assert [(each.name, each.values) for each in found] == [("a", [[1.0], [3.0]]), ("b", [[2.0]])]


def test_a_long_name_is_cut_and_has_no_line_ends() -> None:
    assert short_name("a\nb") == "a b"
    assert len(short_name("x" * 500)) < 100
