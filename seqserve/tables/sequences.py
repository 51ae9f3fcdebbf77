"""Reads a table of several sequences: a column says to which of them each row belongs."""

from dataclasses import dataclass

from seqserve.tables.errors import TableError
from seqserve.tables.files import Origin
from seqserve.tables.observations import Reading, observations_of
from seqserve.tables.rows import Row, column_index, fitted, iter_rows


@dataclass(frozen=True, slots=True)
class NamedRows:
    """The rows of one sequence.

    Attributes:
        name: What the column of sequences calls it; "" where there is no such column.
        values: The values of each row, oldest first, in the order of the names.
    """

    name: str
    values: list[list[float]]


def read_sequences(origin: Origin, reading: Reading, column: str) -> list[NamedRows]:
    """Read the sequences of a table, in the order in which each begins; their rows may alternate.

    Args:
        origin: What to read.
        reading: How to read the rows of each sequence; their order is checked by their dates.
        column: Name of the column that names the sequence; "": all rows are one sequence.

    Raises:
        TableError: There is no such column, a row has no name in it, or the rows of a sequence cannot be
            read (`read_observations`).
    """
    rows = list(iter_rows(origin, reading.delimiter, reading.names, skips_spaces=True))
    if not column:
        return [NamedRows("", observations_of(origin.name, rows, reading).values)]
    if not rows:
        raise TableError(f"{origin.name}: expected rows of numbers, found nothing")
    header = rows[0]
    index = column_index(origin.name, header, column, "--sequence")
    groups: dict[str, list[Row]] = {}
    least = max((place + 1 for place, title in enumerate(header.cells) if title), default=0)
    for row in rows[1:]:
        if (cells := fitted(origin.name, row, len(header.cells), least)) is None:
            continue
        if not cells[index]:
            what = f"{origin.name}: line {row.line}: column {column}"
            raise TableError(f"{what}: expected the name of a sequence, found an empty cell")
        groups.setdefault(cells[index], []).append(_without(Row(row.line, cells), index))
    if not groups:
        raise TableError(f"{origin.name}: expected rows of numbers, found a header alone")
    titles = _without(header, index)
    return [
        NamedRows(name, observations_of(origin.name, [titles, *group], reading).values)
        for name, group in groups.items()
    ]


def _without(row: Row, index: int) -> Row:
    return Row(row.line, row.cells[:index] + row.cells[index + 1 :])
