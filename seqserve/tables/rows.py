"""Cuts delimited text into rows, and finds columns by their names in its header line.

Rows are read one by one, so that a large table costs the memory of what is kept of it.
"""

import csv
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.lines import iter_lines

DELIMITERS = (",", ";", "\t", "|")
"""Looked for in the first line, where nobody says which one it is."""

TAB = "tab"
UNFIT_DELIMITERS = ('"', "\r", "\n", " ")
LONGEST_CELL = 1 << 24
_UNIT = re.compile(r"\s*(\([^()]*\)|\[[^\[\]]*\])$")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        line: Line of the file in which the row begins, 1 being the first.
        cells: Text of each column, without spaces around it.
    """

    line: int
    cells: tuple[str, ...]


def iter_rows(
    origin: Origin, delimiter: str = "", names: Sequence[str] = (), *, skips_spaces: bool = False
) -> Iterator[Row]:
    """Iterate over all rows, the header among them. Empty lines are skipped.

    Args:
        origin: What to read.
        delimiter: Character between cells; "": that of `DELIMITERS` which finds most of the names, or else
            makes most cells, in the first line. With a tab that is given, quotation marks are ordinary
            characters.
        names: Columns that the first line may name.
        skips_spaces: Whether spaces before a quotation mark are left out.

    Raises:
        TableError: It cannot be read, or is no text or no CSV.
    """
    lines = iter_lines(origin, LONGEST_CELL)
    first = next(lines, "")
    csv.field_size_limit(LONGEST_CELL)
    begins, reader = 1, None
    try:
        reader = csv.reader(
            chain([first] if first else [], lines),
            delimiter=delimiter or found_delimiter(first, names),
            quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
            strict=True,
            skipinitialspace=skips_spaces,
        )
        for cells in reader:
            line, begins = begins, reader.line_num + 1
            if cells:
                yield Row(line, tuple([cell.strip() for cell in cells]))
    except csv.Error as error:
        raise TableError(
            f"{origin.name}: line {begins}: expected a CSV row to begin here, "
            f"found none up to line {reader.line_num if reader else begins}: {error}"
        ) from error


def iter_table(
    origin: Origin,
    columns: Sequence[str],
    delimiter: str = "",
    may_be_empty: Container[str] = (),
    *,
    skips_spaces: bool = False,
) -> Iterator[Row]:
    """Iterate over columns of a table with a header line. Rows without any value are skipped.

    Args:
        origin: What to read.
        columns: Names of the columns, in the order wanted.
        delimiter: See `iter_rows`.
        may_be_empty: Columns whose cells may be empty.
        skips_spaces: See `iter_rows`.

    Raises:
        TableError: It cannot be read, is no text in its encoding, lacks a column, has a row of another width
            than its header, or an empty cell.
    """
    rows = iter_rows(origin, delimiter, columns, skips_spaces=skips_spaces)
    header = next(rows, Row(1, ()))
    indices = [column_index(origin.name, header, name) for name in columns]
    _check_different(origin.name, header, columns, indices)
    filled = [(index, name) for index, name in zip(indices, columns, strict=True) if name not in may_be_empty]
    least = max((index + 1 for index, title in enumerate(header.cells) if title), default=0)
    for row in rows:
        cells = fitted(origin.name, row, len(header.cells), least)
        if cells is None:
            continue
        for index, name in filled:
            if not cells[index]:
                raise TableError(
                    f"{origin.name}: line {row.line}: column {name}: expected a value, found an empty cell"
                )
        yield Row(row.line, tuple([cells[index].replace("\r\n", "\n") for index in indices]))


def _check_different(origin: str, header: Row, names: Sequence[str], indices: Sequence[int]) -> None:
    """Check that no column has two of the names, as `close` and `Close (USD)`.

    Raises:
        TableError: One has.
    """
    named: dict[int, str] = {}
    for name, index in zip(names, indices, strict=True):
        if (other := named.setdefault(index, name)) is not name:
            raise TableError(
                f"{origin}: line {header.line}: expected columns of their own for {other} and {name}, "
                f"found {header.cells[index]} for both"
            )


def fitted(name: str, row: Row, width: int, least: int) -> tuple[str, ...] | None:
    """Return a row's cells, as many as the table is wide; None for a row without any value.

    Args:
        name: Name of the file, for messages.
        row: The row.
        width: Cells of the header; empty ones beyond it are left out.
        least: Cells of the header without untitled ones at its end, which may be missing in a row.

    Raises:
        TableError: The row has another width.
    """
    cells = row.cells
    if width > 1 and not any(cells):
        return None
    if len(cells) > width and not any(cells[width:]):
        cells = cells[:width]
    if least <= len(cells) < width:
        cells += ("",) * (width - len(cells))
    if len(cells) != width:
        raise TableError(
            f"{name}: line {row.line}: expected {width} cells, found {len(cells)} "
            "(text that holds the delimiter needs quotation marks)"
        )
    return cells


def find_columns(header: Sequence[str], name: str) -> list[int]:
    """Return the columns that a name means.

    They are those of that name in any case, or else those of that name with a unit after it, as in
    `Close (USD)`. Of `Close` and `close` a name means both, however it is written itself.
    """
    wanted = name.strip().casefold()
    for found in (
        [title.casefold() == wanted for title in header],
        [without_unit(title).casefold() == wanted for title in header],
    ):
        if any(found):
            return [index for index, is_found in enumerate(found) if is_found]
    return []


def without_unit(title: str) -> str:
    """Return the title of a column without the unit after it, as in `Close (USD)`."""
    return _UNIT.sub("", title)


def column_index(origin: str, header: Row, name: str, option: str = "") -> int:
    """Return the column of a name.

    Args:
        origin: Name of the file, for messages.
        header: The names of all columns.
        name: The name.
        option: Name of the option that gave the name, for messages; "": the model did.

    Raises:
        TableError: There is none, or several.
    """
    indices = find_columns(header.cells, name)
    if len(indices) != 1:
        named = [header.cells[index] for index in indices]
        found = f"{len(indices)} columns of that name" if indices else "no such column"
        if len(set(named)) > 1:
            found += f", {' and '.join(dict.fromkeys(named))},"
        titles = ", ".join(" ".join(title.split()) for title in header.cells)
        raise TableError(
            f"{origin}: {option or f'line {header.line}'}: expected a column {' '.join(name.split())}, "
            f"found {found} among {titles or 'nothing'}"
        )
    return indices[0]


def found_delimiter(first: str, names: Sequence[str]) -> str:
    """Return the delimiter that finds most names, or else makes most cells, in a table's first line."""

    def fitness(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip() for cell in next(csv.reader([first], delimiter=delimiter), [])]
        return sum(bool(find_columns(cells, name)) for name in names), len(cells)

    return max(DELIMITERS, key=fitness)
