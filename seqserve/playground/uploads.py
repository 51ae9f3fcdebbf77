"""Reads files that are dropped on a page: lines of text, a series, or sequences, all of bounded size.

Options of the command line that the readers of tables name in their errors are named here as the page's
controls.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from seqserve.tables.dates import utc_now
from seqserve.tables.errors import TableError
from seqserve.tables.files import UTF8, Origin, check_is_plain
from seqserve.tables.lines import iter_lines
from seqserve.tables.observations import Observations, Reading, read_observations
from seqserve.tables.sequences import NamedRows, read_sequences

MAX_FILE_BYTES = 8 << 20
MAX_LINES = 20_000
MAX_LINE_CHARACTERS = 500_000
"""Characters of a line; so that a text of any script fits into the 4 MiB that servers take in a request."""

MAX_NAME_CHARACTERS = 80
DATE_COLUMN, DATE_FORMAT, OLDEST_FIRST = "Date column", "Date format", "Rows are oldest first"
FUTURE_DATES, ENCODING, SEQUENCE_COLUMN = "Dates may be in the future", "Encoding", "Sequence column"

_CONTROLS = {
    "--date-column": DATE_COLUMN,
    "--date-format": DATE_FORMAT,
    "--oldest-first": OLDEST_FIRST,
    "--allow-future-dates": FUTURE_DATES,
    "--encoding": ENCODING,
    "--sequence": SEQUENCE_COLUMN,
}
_OPTION = re.compile("|".join(map(re.escape, _CONTROLS)))


class FileRefusedError(Exception):
    """A dropped file cannot be read; the text is a sentence that says where and why."""


@dataclass(frozen=True, slots=True)
class HowToRead:
    """The user's options of reading a file.

    Attributes:
        date_column: Name or number of the column of dates; "": found by its name or its cells.
        date_format: Form of the dates, of `datetime.strptime`; "": told by the rows.
        is_oldest_first: Whether the order of the rows is right, and is not checked.
        may_be_future: Whether dates after today are accepted.
        encoding: Name of the text's encoding.
        sequence_column: Name of the column that says to which sequence a row belongs; "": there is one.
    """

    date_column: str = ""
    date_format: str = ""
    is_oldest_first: bool = False
    may_be_future: bool = False
    encoding: str = UTF8
    sequence_column: str = ""

    def reading(self, names: Sequence[str], calendar: str = "") -> Reading:
        """Return the options of a table whose values have these names, in the model's order.

        Args:
            names: Names of the values.
            calendar: The one of them that the dates of the rows give; "": none.
        """
        latest = None if self.may_be_future else utc_now()
        return Reading(
            names,
            self.date_column,
            self.date_format,
            self.is_oldest_first,
            latest,
            calendar=calendar,
        )


class Line(NamedTuple):
    """A line of a file: its number, 1 being the first, and its text without the line end."""

    number: int
    text: str


def check_size(name: str, size_bytes: int) -> None:
    """Check the size of a file before it is read.

    Raises:
        FileRefusedError: It is empty, or larger than MAX_FILE_BYTES.
    """
    if size_bytes > MAX_FILE_BYTES:
        raise FileRefusedError(
            f"{short_name(name)}: expected a file of at most {MAX_FILE_BYTES >> 20} MiB, "
            f"found {size_bytes / (1 << 20):.1f} MiB; `seqserve` on the command line reads larger ones"
        )
    if not size_bytes:
        raise FileRefusedError(f"{short_name(name)}: expected a file with lines, found an empty one")


def short_name(name: str) -> str:
    """Return a file's name on one line and of bounded length, for messages and titles."""
    found = " ".join(name.split()) or "the file"
    return found if len(found) <= MAX_NAME_CHARACTERS else f"{found[:MAX_NAME_CHARACTERS]}…"


def read_lines(name: str, data: bytes, encoding: str = UTF8) -> list[Line]:
    """Return the lines of a file, without a byte-order mark and line ends.

    Raises:
        FileRefusedError: The file is too large, no text in its encoding, or has more than MAX_LINES lines.
    """
    lines: list[Line] = []
    with _refused(name, data) as short:
        for number, line in enumerate(
            iter_lines(Origin.of_bytes(short, data, encoding), MAX_LINE_CHARACTERS), 1
        ):
            if number > MAX_LINES:
                raise TableError(f"{short}: expected at most {MAX_LINES:,} lines, found more")
            lines.append(Line(number, line.rstrip("\r\n")))
    return lines


def read_series(
    name: str, data: bytes, names: Sequence[str], how: HowToRead, calendar: str = ""
) -> Observations:
    """Return the rows of one series, oldest first, with the values in the order of `names`.

    Args:
        name: Name of the file.
        data: Its bytes.
        names: Names of the values, in the model's order.
        how: How to read it.
        calendar: The one of `names` that the dates of the rows give; "": none.

    Raises:
        FileRefusedError: The file is too large, a column is missing, a cell is no number, or the rows are not
            oldest first.
    """
    with _refused(name, data) as short:
        found = read_observations(Origin.of_bytes(short, data, how.encoding), how.reading(names, calendar))
    return Observations(found.values, tuple(map(in_page_words, found.notes)))


def read_tables(name: str, data: bytes, names: Sequence[str], how: HowToRead) -> list[NamedRows]:
    """Return the sequences of a table, in the order in which each begins.

    Raises:
        FileRefusedError: See `read_series`, or there is no column of the name that tells sequences apart.
    """
    with _refused(name, data) as short:
        origin = Origin.of_bytes(short, data, how.encoding)
        return read_sequences(origin, how.reading(names), how.sequence_column)


def in_page_words(message: str) -> str:
    """Return a message with the command line's options replaced by the names of the page's controls."""
    return _OPTION.sub(lambda found: f"“{_CONTROLS[found[0]]}”", message)


@contextmanager
def _refused(name: str, data: bytes) -> Iterator[str]:
    """Yield the file's short name, and convert the readers' errors to those of the page.

    Raises:
        FileRefusedError: The file is refused.
    """
    check_size(name, len(data))
    short = short_name(name)
    try:
        check_is_plain(short, data)
        yield short
    except TableError as error:
        raise FileRefusedError(in_page_words(str(error))) from error
