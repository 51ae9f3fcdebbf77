"""Reading the user's files: text and tables. What is wrong with a file is said with its line and column.

It does not know what the data mean.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.fit import TrainingError


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        line: of the file, 1 the first, where the row begins.
        cells: the text in each column asked for, in that order, without spaces around it.
    """

    line: int
    cells: tuple[str, ...]


def read_utf8(path: Path) -> str:
    """A text file; a byte-order mark at its start is dropped, line ends become "\\n".

    Raises:
        TrainingError: cannot be read, or is not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TrainingError(f"{path}: line {line}, byte {error.start}: expected UTF-8 text, found byte 0x{data[error.start]:02x}") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[Row]:
    """Columns of a CSV file with a header line; with a tab as delimiter, quotation marks are ordinary characters.

    Raises:
        TrainingError: cannot be read, is not UTF-8, lacks a column, has a row of another width than its header, or an empty cell.
    """
    file = io.StringIO(read_utf8(path), newline="")
    reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL, strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        indices = [_column_index(path, header, name) for name in columns]
        begins = reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise TrainingError(
                    f"{path}: line {line}: expected {len(header)} cells, found {len(cells)} (text that holds the delimiter needs quotation marks)"
                )
            rows.append(Row(line, tuple(cells[index].strip() for index in indices)))
    except csv.Error as error:
        raise TrainingError(f"{path}: line {reader.line_num}: not a CSV row: {error}") from error
    for row in rows:
        if "" in row.cells:
            raise TrainingError(f"{path}: line {row.line}: column {columns[row.cells.index('')]}: expected a value, found an empty cell")
    return rows


def _column_index(path: Path, header: Sequence[str], name: str) -> int:
    if header.count(name) != 1:
        found = "no such column" if name not in header else f"{header.count(name)} columns of that name"
        raise TrainingError(f"{path}: line 1: expected a column {name}, found {found} among {', '.join(header) or 'nothing'}")
    return header.index(name)


def number(path: Path, row: Row, column: str, cell: str) -> float:
    """A cell as a finite number.

    Raises:
        TrainingError: it is none.
    """
    try:
        value = float(cell)
    except ValueError:
        value = None
    if value is None or not math.isfinite(value):
        raise TrainingError(f"{path}: line {row.line}: column {column}: expected a finite number, found {cell!r}")
    return value
