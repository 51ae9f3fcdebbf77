"""Declares the options of commands that read tables."""

from typing import Annotated

import typer

DateFormat = Annotated[
    str,
    typer.Option(
        metavar="FORMAT",
        help="Form of the dates, as strptime has it: %d/%m/%Y. Default: told by the rows.",
        show_default=False,
    ),
]
OldestFirst = Annotated[
    bool,
    typer.Option("--oldest-first", help="The order of the rows is right; do not check it by their dates."),
]
Delimiter = Annotated[
    str,
    typer.Option(
        help="Character between cells, or tab. Default: found in the first line.", show_default=False
    ),
]
