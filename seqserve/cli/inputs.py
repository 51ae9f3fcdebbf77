"""Where commands read from: arguments, a file, or standard input."""

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
def opened(file: Path | None) -> Iterator[TextIO]:
    """A file, or standard input where there is none, as UTF-8 text.

    Raises:
        UsageError: it cannot be opened.
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


def read(file: Path | None) -> str:
    """The whole of a file or of standard input."""
    with opened(file) as stream:
        return stream.read()


def lines_of(stream: TextIO) -> Iterator[str]:
    """Lines as they come, without their ends."""
    return (line.removesuffix("\n") for line in stream)


def must_read(arguments: Sequence[str], file: Path | None) -> bool:
    """Whether to read a file or standard input, rather than to take the arguments.

    Raises:
        UsageError: both are given, or nothing is and standard input is a terminal.
    """
    if arguments and file is not None:
        raise UsageError("give either arguments or --file, not both")
    if list(arguments) == [STDIN] or file is not None:
        return True
    if not arguments and sys.stdin.isatty():
        raise UsageError("nothing given: name it as an argument, with --file, or through a pipe")
    return not arguments
