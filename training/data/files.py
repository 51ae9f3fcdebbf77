"""Reads the user's files: text and tables, by the readers of `seqserve.tables`.

What is wrong with a file is a TrainingError that names its line and column. Tables are read row by row, so
that a large one costs the memory of what is kept of it.
"""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seqserve.tables import lines, rows
from seqserve.tables.errors import TableError
from seqserve.tables.files import UTF8, Origin, check_is_plain, check_rereadable
from seqserve.tables.numbers import parse_number
from seqserve.tables.rows import Row
from training.errors import TrainingError


@contextmanager
def table_errors() -> Iterator[None]:
    """Convert errors of `seqserve.tables` to TrainingError."""
    try:
        yield
    except TableError as error:
        raise TrainingError(str(error)) from error


def check_file(path: Path) -> None:
    """Check that a file can be read more than once and is plain text.

    A run reads its files several times: for their hash, their characters and their ids. A pipe would be empty
    the second time.

    Raises:
        TrainingError: It cannot be read, is no regular file, or holds packed data.
    """
    with table_errors():
        check_is_plain(str(path), check_rereadable(path))


def check_regular(path: Path) -> None:
    """Check that a file, of whatever contents, can be read more than once.

    Raises:
        TrainingError: It cannot be read, or is no regular file.
    """
    with table_errors():
        check_rereadable(path)


def read_utf8(path: Path) -> str:
    """Read a UTF-8 text file as `read_whole` does."""
    return read_whole(path, UTF8)


def read_whole(path: Path, encoding: str) -> str:
    """Read a text file; a byte-order mark at its start is dropped, line ends become "\\n".

    Raises:
        TrainingError: It cannot be read, or is no text in that encoding.
    """
    return "".join(iter_lines(path, encoding))


def iter_lines(path: Path, encoding: str) -> Iterator[str]:
    """Iterate over the lines of a file as `read_whole` gives them.

    Raises:
        TrainingError: It cannot be read, or is no text in that encoding.
    """
    check_file(path)
    with table_errors():
        for line in lines.iter_lines(Origin.of_file(path, encoding)):
            yield line.replace("\r\n", "\n")


def iter_table(
    path: Path,
    columns: Sequence[str],
    delimiter: str = "",
    encoding: str = UTF8,
    may_be_empty: Container[str] = (),
    *,
    skips_spaces: bool = False,
) -> Iterator[Row]:
    """Iterate over columns of a CSV file with a header line, as `seqserve.tables.rows.iter_table` does.

    Raises:
        TrainingError: It cannot be read, is no text in that encoding, lacks a column, has a row of another
            width than its header, or an empty cell.
    """
    check_file(path)
    with table_errors():
        yield from rows.iter_table(
            Origin.of_file(path, encoding), columns, delimiter, may_be_empty, skips_spaces=skips_spaces
        )


def read_table(path: Path, columns: Sequence[str], delimiter: str = "", encoding: str = UTF8) -> list[Row]:
    """Read all rows of `iter_table` at once."""
    return list(iter_table(path, columns, delimiter, encoding))


def number(path: Path, row: Row, column: str, cell: str) -> float:
    """Parse a cell as a finite number.

    Raises:
        TrainingError: It is none; the text names line and column.
    """
    with table_errors():
        return parse_number(f"{path}: line {row.line}: column {column}", cell)
