"""Reads a table that grows: its lines as they are written, and the row in each."""

import csv
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from seqserve.tables.errors import TableError
from seqserve.tables.files import check_is_plain, errno_text
from seqserve.tables.numbers import parse_number
from seqserve.tables.observations import is_header
from seqserve.tables.rows import Row, column_index, find_columns, found_delimiter

MOST_LINE_BYTES = 1 << 24
_BLOCK = 1 << 16


def iter_growing(
    path: Path, name: str, wait: Callable[[], None], note: Callable[[str], None]
) -> Iterator[bytes]:
    """Iterate over the lines of a file without end; a line counts once its newline is written.

    A file that was truncated, or replaced by another one of its name, is read from its beginning.

    Args:
        path: The file.
        name: What messages call it.
        wait: Waits until it is worth looking at the file again.
        note: Takes what the user should know, a sentence.

    Raises:
        TableError: The file cannot be read, or a line is too long.
    """
    file = _opened(path, name)
    try:
        rest = b""
        is_first = True
        while True:
            if block := file.read(_BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                if lines and is_first:
                    lines[0], is_first = lines[0].removeprefix(BOM_UTF8), False
                yield from lines
                _check_length(name, rest)
                continue
            wait()
            if change := _change(file, path):
                lost = f", without the {len(rest)} bytes of its last line" if rest else ""
                note(f"{name} {change}; it is read from its beginning{lost}, and the sequences go on")
                file.close()
                file, rest, is_first = _opened_again(path, name, wait), b"", True
    finally:
        file.close()


def iter_stream(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Iterate over the lines of a stream as they come, to its end.

    Raises:
        TableError: The stream cannot be read, or a line is too long.
    """
    try:
        while line := stream.readline(MOST_LINE_BYTES + 1):
            _check_length(name, line)
            yield line.removesuffix(b"\n")
    except OSError as error:
        raise TableError(f"{name}: cannot be read: {errno_text(error)}") from error


def iter_decoded(lines: Iterator[bytes], name: str) -> Iterator[tuple[int, str | TableError]]:
    """Decode lines of UTF-8, without a byte-order mark at the start and carriage returns at their ends.

    Yields:
        The number of each line that is not empty, 1 being the first, and its text, or the error that says
        why it is none.

    Raises:
        TableError: The first line is that of packed data.
    """
    for number, line in enumerate(lines, 1):
        if number == 1:
            check_is_plain(name, line)
        try:
            text = line.decode().removesuffix("\r")
        except UnicodeDecodeError as error:
            found = f"found byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
            yield number, TableError(f"{name}: line {number}: expected UTF-8 text, {found}")
            continue
        text = text.removeprefix("\ufeff") if number == 1 else text
        if text.strip():
            yield number, text


class RowReader:
    """Reads rows of numbers, one line at a time; the first line may be a header.

    A further header, as in a file that was replaced, says where the values are from then on.

    Args:
        origin: What messages call the table.
        names: Names of the values in the model's order; if empty, every column but that of sequences.
        sequence: Name of the column that names the sequence; "": there is none.
        delimiter: Character between cells; "": told by the first line.
    """

    def __init__(self, origin: str, names: Sequence[str], sequence: str = "", delimiter: str = "") -> None:
        self._origin = origin
        self._names = names
        self._sequence = sequence
        self._delimiter = delimiter
        self._header: tuple[str, ...] | None = None
        self._values: list[int] = []
        self._name_index: int | None = None
        self._refused_header = 0  # line of the last header, where the columns were not found in it

    def read(self, number: int, line: str) -> tuple[str, list[float]] | None:
        """Return the name of a row's sequence and its values, or None for a header.

        Raises:
            TableError: The line is no row of the table.
        """
        if not self._delimiter:
            self._delimiter = found_delimiter(line, [*self._names, self._sequence])
        cells = tuple(cell.strip() for cell in next(csv.reader([line], delimiter=self._delimiter)))
        if self._header is None or self._is_further_header(cells):
            self._refused_header = number
            has_header = self._begin(Row(number, cells))
            self._refused_header = 0
            if has_header:
                return None
        place = f"{self._origin}: line {number}"
        if self._refused_header:
            raise TableError(
                f"{place}: expected a row below a usable header, found one below line {self._refused_header}"
            )
        if len(cells) != self._width:
            raise TableError(f"{place}: expected {self._width} cells, found {len(cells)}")
        name = "" if self._name_index is None else cells[self._name_index]
        if self._name_index is not None and not name:
            what = f"{place}: column {self._sequence}"
            raise TableError(f"{what}: expected the name of a sequence, found an empty cell")
        titles = self._names or self._header or ()
        return name, [
            parse_number(f"{place}: column {titles[at] if titles else index + 1}", cells[index])
            for at, index in enumerate(self._values)
        ]

    def _is_further_header(self, cells: tuple[str, ...]) -> bool:
        """Return whether a line names values; a row may have the name of one as that of its sequence."""
        return is_header(cells, ()) and any(find_columns(cells, name) for name in self._names)

    def _begin(self, row: Row) -> bool:
        """Find the columns by the first line or a header; return whether it is a header."""
        has_header = is_header(row.cells, self._names)
        if self._sequence:
            self._name_index = column_index(self._origin, row, self._sequence, "--sequence")
            has_header = True
        every = [index for index in range(len(row.cells)) if index != self._name_index]
        if has_header and self._names:
            self._values = [column_index(self._origin, row, name) for name in self._names]
        else:
            self._values = every
        if self._names and len(self._values) != len(self._names):
            raise TableError(
                f"{self._origin}: line {row.line}: expected {len(self._names)} values "
                f"({', '.join(self._names)}), found {len(every)}; name the columns in a header line"
            )
        self._width = len(row.cells)
        self._header = row.cells if has_header else ()
        if has_header and not self._names:
            self._names = [row.cells[index] for index in self._values]
        return has_header


def _opened(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise TableError(f"{name}: cannot be read: {errno_text(error)}") from error


def _opened_again(path: Path, name: str, wait: Callable[[], None]) -> BinaryIO:
    """Open a file that may be missing for a while, as in a rotation."""
    while not path.exists():
        wait()
    return _opened(path, name)


def _change(file: BinaryIO, path: Path) -> str:
    """Say what became of a file whose end was reached; "" for nothing, or where there is more to read."""
    held = os.fstat(file.fileno())
    if held.st_size > file.tell():
        return ""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "was removed"
    if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
        return "was replaced"
    return "was truncated" if held.st_size < file.tell() else ""


def _check_length(name: str, line: bytes) -> None:
    if len(line) > MOST_LINE_BYTES:
        raise TableError(f"{name}: expected lines of at most {MOST_LINE_BYTES:,} bytes, found a longer one")
