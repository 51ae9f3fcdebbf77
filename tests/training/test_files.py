"""Wrong files are refused with the file's line and column."""

from pathlib import Path

import pytest

from training.files import Row, number, read_table, read_utf8
from training.fit import TrainingError


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
        ('a,b\n1,"2\n', "not a CSV row"),
        (b"a,b\n1,2\n\xe9,2\n", "line 3, byte 8: expected UTF-8 text, found byte 0xe9"),
    ],
    ids=["other columns", "empty file", "column twice", "too many cells", "empty cell", "open quotation", "not UTF-8"],
)
def test_wrong_table_is_refused_with_its_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        read_table(_file(tmp_path, content), ("a",))


@pytest.mark.parametrize("cell", ["twelve", "1,5", "nan", "-inf", "1e999"])
def test_cell_that_is_no_finite_number_is_refused_with_line_and_column(cell: str) -> None:
    with pytest.raises(TrainingError, match=f"own.csv: line 4: column close: expected a finite number, found '{cell}'"):
        number(Path("own.csv"), Row(4, (cell,)), "close", cell)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_utf8(tmp_path / "none.txt")
    with pytest.raises(TrainingError, match="cannot be read: Is a directory"):
        read_utf8(tmp_path)
