"""Reading the user's files: text and tables. What is wrong with a file is said with its line and column.

It does not know what the data mean. Tables are read row by row, so that a large one costs the memory of what
is kept of it.
"""

import codecs
import csv
import math
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.fit import TrainingError

UTF8 = "utf-8"
# Looked for in the header line, where nobody says which one it is.
DELIMITERS = (",", ";", "\t", "|")
TAB = "tab"
UNFIT_DELIMITERS = ('"', "\r", "\n", " ")
LONGEST_CELL = 1 << 24
LARGEST_NUMBER = 1e100
_BLOCK = 1 << 20
_DECIMAL_COMMA = re.compile(r"[+-]?[\d.' ]*\d,\d+")


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
    """`read_whole` of UTF-8."""
    return read_whole(path, UTF8)


def read_whole(path: Path, encoding: str) -> str:
    """A text file; a byte-order mark at its start is dropped, line ends become "\\n".

    Raises:
        TrainingError: cannot be read, or is no text in that encoding.
    """
    return "".join(iter_lines(path, encoding))


def iter_lines(path: Path, encoding: str) -> Iterator[str]:
    """`read_whole`, line by line."""
    return (line.replace("\r\n", "\n") for line in _lines(path, encoding))


def iter_table(
    path: Path,
    columns: Sequence[str],
    delimiter: str = "",
    encoding: str = UTF8,
    may_be_empty: Container[str] = (),
) -> Iterator[Row]:
    """Columns of a CSV file with a header line, row by row. Empty lines are passed over.

    Args:
        path: of the file.
        columns: which ones, in the order wanted.
        delimiter: "": that of `DELIMITERS` which finds the columns in the header line. With a tab that is
            given, quotation marks are ordinary characters.
        encoding: of the file.
        may_be_empty: columns whose cells may be.
    Raises:
        TrainingError: cannot be read, is no text in that encoding, lacks a column, has a row of another width
            than its header, or an empty cell.
    """
    lines = _lines(path, encoding)
    if not delimiter:
        first = next(lines, "")
        delimiter = _found_delimiter(first, columns)
        reader = csv.reader(_again(first, lines), delimiter=delimiter, strict=True)
    else:
        reader = csv.reader(
            lines,
            delimiter=delimiter,
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            strict=True,
        )
    csv.field_size_limit(LONGEST_CELL)
    begins = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        indices = [_column_index(path, header, name) for name in columns]
        must_be_filled = [
            (index, name) for index, name in zip(indices, columns, strict=True) if name not in may_be_empty
        ]
        begins = reader.line_num + 1
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if not cells or (len(cells) == 1 and not cells[0].strip() and len(header) > 1):
                continue
            if len(cells) != len(header):
                sign = TAB if delimiter == "\t" else delimiter
                raise TrainingError(
                    f"{path}: line {line}: expected {len(header)} cells, "
                    f"found {len(cells)} (text that holds {sign} needs quotation marks)"
                )
            for index, name in must_be_filled:
                if not cells[index].strip():
                    raise TrainingError(
                        f"{path}: line {line}: column {name}: expected a value, found an empty cell"
                    )
            yield Row(line, tuple(cells[index].strip().replace("\r\n", "\n") for index in indices))
    except csv.Error as error:
        raise TrainingError(
            f"{path}: line {begins}: expected a CSV row to begin here, "
            f"found none up to line {reader.line_num}: {error}"
        ) from error


def read_table(path: Path, columns: Sequence[str], delimiter: str = "", encoding: str = UTF8) -> list[Row]:
    """`iter_table`, all rows at once."""
    return list(iter_table(path, columns, delimiter, encoding))


def number(path: Path, row: Row, column: str, cell: str) -> float:
    """A cell as a finite number.

    Raises:
        TrainingError: it is none.
    """
    try:
        value = math.nan if "_" in cell else float(cell)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and abs(value) <= LARGEST_NUMBER:
        return value
    if _DECIMAL_COMMA.fullmatch(cell):
        wanted = "a number with a decimal point and no other signs"
    elif math.isfinite(value):
        wanted = f"a number between -{LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}"
    else:
        wanted = "a finite number"
    raise TrainingError(f"{path}: line {row.line}: column {column}: expected {wanted}, found {_shown(cell)}")


def _shown(cell: str, most: int = 60) -> str:
    """A cell on one line."""
    return repr(cell if len(cell) <= most else cell[:most] + "...")


def _column_index(path: Path, header: Sequence[str], name: str) -> int:
    if header.count(name) != 1:
        found = "no such column" if name not in header else f"{header.count(name)} columns of that name"
        raise TrainingError(
            f"{path}: line 1: expected a column {name}, found {found} "
            f"among {', '.join(map(_on_one_line, header)) or 'nothing'}"
        )
    return header.index(name)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _found_delimiter(header: str, columns: Sequence[str]) -> str:
    """The one under which most of the columns are in the header line; of several, the one that makes most
    cells; else the first.
    """

    def fitness(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        return sum(name in names for name in columns), len(names)

    return max(DELIMITERS, key=fitness)


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends as they are, without a byte-order mark."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            for index, line in enumerate(file):
                if "\0" in line:
                    raise TrainingError(
                        f"{path}: line {index + 1}: expected text, "
                        "found a zero byte (UTF-16 needs --encoding utf-16)"
                    )
                yield line if index else line.removeprefix("\ufeff")
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    except LookupError as error:
        raise TrainingError(
            f"--encoding: expected the name of a text encoding, such as {UTF8} or cp1252, found {encoding!r}"
        ) from error
    except UnicodeError as error:
        raise _undecodable(path, encoding) from error


def _undecodable(path: Path, encoding: str) -> TrainingError:
    """Where the first bytes stand that are no text: read again, since the first reading knew its position in
    a buffer alone.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    line, offset = 1, 0
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            waiting = decoder.getstate()[0]
            try:
                line += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(encoding, errors="replace")
                found = f"byte 0x{error.object[error.start]:02x}"
                place = f"line {line + before.count(chr(10))}, byte {offset - len(waiting) + error.start}"
                return TrainingError(
                    f"{path}: {place}: expected {encoding.upper()} text, "
                    f"found {found}{_perhaps(encoding, error.object)}"
                )
            except UnicodeError as error:
                return TrainingError(
                    f"{path}: line {line}: expected {encoding.upper()} text, found none: {error}"
                )
            if not block:
                return TrainingError(f"{path}: expected {encoding.upper()} text, found bytes that are none")
            offset += len(block)


def _perhaps(encoding: str, data: bytes) -> str:
    """What to try; nothing is tried unasked, since most encodings read most bytes, and read them wrongly."""
    if encoding != UTF8:
        return ""
    other = "utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "cp1252"
    return f"; if the file is in {other}, say --encoding {other}"
