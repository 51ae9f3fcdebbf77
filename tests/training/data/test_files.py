"""Wrong files are refused with the file's line and column."""

import csv
import io
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.tables.rows import Row
from tests.training.conftest import problem_of
from training.data.files import iter_table, number, read_table, read_utf8, read_whole
from training.errors import TrainingError


def _file(folder: Path, content: str | bytes) -> Path:
    path = folder / "own.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_table_gives_the_columns_asked_for_with_their_lines(tmp_path: Path) -> None:
    path = _file(tmp_path, '\ufeffa,b,c\r\n1,"two\r\nlines, quoted",3\r\n\r\n4, 5 ,6\r\n')
    assert read_table(path, ("c", "b")) == [Row(2, ("3", "two\nlines, quoted")), Row(5, ("6", "5"))]


def test_quotation_marks_between_tabs_are_text(tmp_path: Path) -> None:
    assert read_table(_file(tmp_path, 'a\tb\n1\t"so\n'), ("b",), delimiter="\t") == [Row(2, ('"so',))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2\n", "line 1: expected a column a, found no such column among x, y"),
        ("", "line 1: expected a column a, found no such column among nothing"),
        ("a,a\n1,2\n", "line 1: expected a column a, found 2 columns of that name"),
        ("a,b\n1,2\n1,2,3\n", "line 3: expected 2 cells, found 3"),
        ("a,b\n1,2\n ,2\n", "line 3: column a: expected a value, found an empty cell"),
        ('a,b\n1,"2\n', "line 2: expected a CSV row to begin here"),
        (b"a,b\n1,2\n\xe9,2\n", "line 3, byte 8: expected UTF-8 text, found byte 0xe9"),
    ],
    ids=[
        "other columns",
        "empty file",
        "column twice",
        "too many cells",
        "empty cell",
        "open quotation",
        "not UTF-8",
    ],
)
def test_wrong_table_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_table(_file(tmp_path, content), ("a",))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_told_by_the_header_line(tmp_path: Path, delimiter: str) -> None:
    path = _file(tmp_path, f'a b{delimiter}"c, d; e"{delimiter}f\n1{delimiter}"2{delimiter}2"{delimiter}3\n')
    assert read_table(path, ("f", "c, d; e")) == [Row(2, ("3", f"2{delimiter}2"))]


def test_delimiter_that_is_given_counts(tmp_path: Path) -> None:
    assert read_table(_file(tmp_path, "a;b,c\n1;2,3\n"), ("a;b",), ",") == [Row(2, ("1;2",))]
    with pytest.raises(
        TrainingError, match=re.escape("line 1: expected a column a;b, found no such column among a, b,c")
    ):
        read_table(_file(tmp_path, "a;b,c\n1;2,3\n"), ("a;b",), ";")


def test_empty_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    assert read_table(_file(tmp_path, "a,b\n\n1,2\n   \n3,4\n\n"), ("a",)) == [Row(3, ("1",)), Row(5, ("3",))]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "a,b\n1,café\n"),
        ("utf-16", "a,b\r\n1,日本\r\n"),
        ("utf-8-sig", "a,b\n1,é\n"),
        ("utf-16-le", "\ufeffa,b\n1,é\n"),
    ],
)
def test_other_encodings_are_read_when_they_are_named(tmp_path: Path, encoding: str, text: str) -> None:
    path = _file(tmp_path, text.encode(encoding))
    assert read_table(path, ("a", "b"), encoding=encoding)[0].cells[1] == text.rsplit(maxsplit=1)[-1][2:]
    assert read_whole(path, encoding) == text.replace("\r\n", "\n").removeprefix("\ufeff")


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (
            b"a\nb\n" + b"c" * (3 << 20) + b"\xe9\n",
            "utf-8",
            f"line 3, byte {(3 << 20) + 4}: expected UTF-8 text, found byte 0xe9; .*--encoding cp1252",
        ),
        (b"a\n" + "é".encode()[:1], "utf-8", "line 2, byte 2: expected UTF-8 text, found byte 0xc3"),
        (
            "a,b".encode("utf-16"),
            "utf-8",
            "line 1, byte 0: expected UTF-8 text, found byte 0xff; .*--encoding utf-16",
        ),
        ("a,b\n".encode("utf-16-le"), "utf-8", "line 1: expected text, found a zero byte"),
        (b"a\nb\x81", "cp1252", "line 2, byte 3: expected CP1252 text, found byte 0x81$"),
        (
            b"a",
            "utf-99",
            "--encoding: expected the name of a text encoding, such as utf-8 or cp1252, found 'utf-99'",
        ),
        (b"a", "base64", "--encoding: expected the name of a text encoding"),
    ],
    ids=["far behind", "cut at the end", "UTF-16", "UTF-16 without mark", "named", "unknown", "no text"],
)
def test_bytes_that_are_no_text_are_refused_with_line_and_byte(
    tmp_path: Path, content: bytes, encoding: str, message: str
) -> None:
    path = _file(tmp_path, content)
    for read in (read_whole, lambda path, encoding: read_table(path, ("a",), encoding=encoding)):
        with pytest.raises(TrainingError, match=message):
            read(path, encoding)


def test_large_table_costs_no_memory_of_its_own(tmp_path: Path) -> None:
    path = _file(tmp_path, "a,b\n" + f"1,{'some text ' * 20}\n" * 10_000)
    tracemalloc.start()
    count = sum(1 for _ in iter_table(path, ("b",)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert peak < path.stat().st_size / 10


@given(st.lists(st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"))] * 2)))
def test_any_cells_that_are_written_are_read_or_refused_with_their_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("a", "b"), *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(file.getvalue().encode())
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if any(not cell.strip() for row in rows for cell in row):
        with pytest.raises(
            TrainingError, match=r"any.csv: line \d+: column [ab]: expected a value, found an empty cell"
        ):
            read_table(path, ("b", "a"))
    else:
        assert [row.cells for row in read_table(path, ("b", "a"))] == [
            (b.strip().replace("\r\n", "\n"), a.strip().replace("\r\n", "\n")) for a, b in rows
        ]


@given(
    st.binary() | st.text().map(str.encode),
    st.sampled_from(["", ",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "latin-1"]),
)
def test_any_bytes_are_read_or_refused_in_one_line_that_says_where(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, delimiter: str, encoding: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(("a,b\n" if encoding == "utf-8" else "").encode() + content)
    problem = problem_of(lambda: read_table(path, ("a",), delimiter, encoding))
    # A file of another kind is refused as a whole.
    where = r"line \d+(, byte \d+)?: .*|expected plain text, found .*"
    assert problem is None or re.fullmatch(rf".*bytes\.csv: ({where})", problem)


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("1,5", "a number with a decimal point"),
        ("1.234,56", "a number with a decimal point"),
        ("1e200", "between"),
    ],
)
def test_number_in_another_form_is_refused_with_what_is_wrong(cell: str, wanted: str) -> None:
    with pytest.raises(
        TrainingError,
        match=(
            "own.csv: line 4: column close: "
            f"expected a number.*{wanted.removeprefix('a number')}.*, found '{cell}'"
        ),
    ):
        number(Path("own.csv"), Row(4, (cell,)), "close", cell)


@pytest.mark.parametrize("cell", ["twelve", "1_000", "nan", "-inf", "1e999"])
def test_cell_that_is_no_finite_number_is_refused_with_line_and_column(cell: str) -> None:
    with pytest.raises(
        TrainingError, match=f"own.csv: line 4: column close: expected a finite number, found '{cell}'"
    ):
        number(Path("own.csv"), Row(4, (cell,)), "close", cell)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_utf8(tmp_path / "none.txt")
    with pytest.raises(TrainingError, match="cannot be read: Is a directory"):
        read_utf8(tmp_path)
