"""The inputs of commands: arguments, a file, or standard input."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, TextIO, TypeAlias

import typer

from seqserve.cli.session import UsageError

STDIN = "-"

FileOption: TypeAlias = Annotated[
    Path | None, typer.Option("--file", "-f", help="Read from this file; - is standard input.")
]


@contextmanager
def open_input(file: Path | None) -> Iterator[TextIO]:
    """Open a file, or standard input if there is none, as UTF-8 text.

    Raises:
        UsageError: The file cannot be opened.
    """
    if file is None or str(file) == STDIN:
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        yield sys.stdin
        return
    try:
        stream = file.open(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    with stream:
        yield stream


def read_input(file: Path | None) -> str:
    """Read all of a file or of standard input."""
    with open_input(file) as stream:
        return stream.read()


def iter_lines(stream: TextIO) -> Iterator[str]:
    """Iterate over lines as they arrive, without their line ends."""
    return (line.removesuffix("\n") for line in stream)


def should_read_input(arguments: Sequence[str], file: Path | None) -> bool:
    """Return whether to read a file or standard input instead of the arguments.

    Raises:
        UsageError: Both are given, or neither is and standard input is a terminal.
    """
    if arguments and file is not None:
        raise UsageError("give either arguments or --file, not both")
    if list(arguments) == [STDIN] or file is not None:
        return True
    if not arguments and sys.stdin.isatty():
        raise UsageError("nothing given: name it as an argument, with --file, or through a pipe")
    return not arguments
