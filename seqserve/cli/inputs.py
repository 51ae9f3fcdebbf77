"""Chooses the input of a command: arguments, a file, or standard input.

`seqserve.cli.texts` reads texts from there.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from seqserve.cli.session import UsageError

STDIN = "-"

FileOption: TypeAlias = Annotated[
    Path | None, typer.Option("--file", "-f", help="Read from this file; - is standard input.")
]


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
