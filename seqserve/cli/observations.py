"""Reads the observations of a series for commands: from a file, a pipe or standard input, all in one way."""

import sys
from pathlib import Path

from seqserve.cli.inputs import STDIN
from seqserve.cli.output import escape_controls
from seqserve.cli.session import UsageError
from seqserve.tables.errors import TableError
from seqserve.tables.files import UTF8, Origin, read_once, read_stream
from seqserve.tables.observations import Observations, Reading, read_observations
from seqserve.tables.rows import TAB, UNFIT_DELIMITERS

STDIN_NAME = "standard input"


def read_series(file: Path | None, reading: Reading, encoding: str = UTF8) -> Observations:
    """Read the observations of a file, or of standard input if there is none or it is "-".

    Args:
        file: A file or a pipe.
        reading: How to read it.
        encoding: Name of its text's encoding.

    Raises:
        UsageError: It cannot be read or understood; the text says where.
    """
    try:
        return read_observations(_origin(file, encoding), reading)
    except TableError as error:
        raise UsageError(str(error)) from error


def series_name(file: Path | None) -> str:
    """Return what messages call the file, on one line, or standard input."""
    return escape_controls(str(file)) if file is not None and str(file) != STDIN else STDIN_NAME


def _origin(file: Path | None, encoding: str) -> Origin:
    return Origin.of_bytes(series_name(file), read_bytes(file), encoding)


def read_bytes(file: Path | None) -> bytes:
    """Read a file or a pipe, or standard input if there is none or it is "-", to its end.

    Raises:
        TableError: It cannot be read, is too large, or holds packed data.
    """
    if file is not None and str(file) != STDIN:
        return read_once(file, series_name(file))
    if sys.stdin is None:
        raise TableError(f"{STDIN_NAME}: expected rows of numbers, found it closed")
    try:
        return read_stream(STDIN_NAME, sys.stdin.buffer)
    except OSError as error:
        raise TableError(f"{STDIN_NAME}: cannot be read: {error.strerror}") from error


def checked_delimiter(given: str) -> str:
    """Return the delimiter that an option gives; "" is none.

    Raises:
        UsageError: It can be none.
    """
    delimiter = "\t" if given == TAB else given
    if len(delimiter) > 1 or delimiter in UNFIT_DELIMITERS:
        raise UsageError(f"--delimiter: expected one character or {TAB}, found {given!r}")
    return delimiter
