"""Tables, drawn on a terminal, otherwise tab-separated values with a header line; and plots."""

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqserve.cli.output import can_print, escape_controls

_MIN_WIDTH = 40  # columns below which a drawn table would leave out numbers, and a plot its curve


class Column(NamedTuple):
    """A column: its title, and whether it has numbers (right-aligned) or text (cut to fit)."""

    title: str
    is_number: bool = False
    is_text: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows that have one cell per column."""
    if not has_wide_terminal():
        print_tab_separated([column.title for column in columns])
        for row in rows:
            print_tab_separated(row)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(escape(column.title)),
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number or column.is_text,
            overflow="ellipsis" if column.is_text else "fold",
        )
    for row in rows:
        table.add_row(*(Text(escape(cell)) for cell in row))
    Console().print(table)


def print_plot(draw: Callable[[int], str]) -> None:
    """Print a plot, or say on standard error why there is none.

    Args:
        draw: Draws the plot for a terminal of that many columns.
    """
    width = shutil.get_terminal_size().columns
    drawn = draw(width)
    if width < _MIN_WIDTH:
        typer.echo(f"no plot: it needs {_MIN_WIDTH} columns, and the terminal has {width}", err=True)
    elif not can_print(drawn):
        typer.echo(f"no plot: the encoding of standard output is {sys.stdout.encoding}, not UTF-8", err=True)
    else:
        sys.stdout.write(drawn + "\n")


def print_tab_separated(cells: Iterable[str]) -> None:
    """Print one line and flush it."""
    sys.stdout.write("\t".join(map(escape, cells)) + "\n")
    sys.stdout.flush()


def escape(text: str) -> str:
    """Escape backslashes, and what separates cells and rows or changes a terminal."""
    return escape_controls(text.replace("\\", "\\\\"))


def has_wide_terminal() -> bool:
    """Return whether standard output is a terminal on which a table can be drawn without losing numbers."""
    return sys.stdout.isatty() and Console().width >= _MIN_WIDTH
