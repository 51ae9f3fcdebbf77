"""Tables: drawn on a terminal, tab-separated values with a header line anywhere else."""

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Column(NamedTuple):
    """A column: its title, and whether it holds numbers (to the right) or running text (cut to fit)."""

    title: str
    is_number: bool = False
    is_text: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows of as many cells as there are columns."""
    if not sys.stdout.isatty():
        print_tab_separated([column.title for column in columns])
        for row in rows:
            print_tab_separated(row)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=column.is_number or column.is_text,
            overflow="ellipsis" if column.is_text else "fold",
        )
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console().print(table)


def print_tab_separated(cells: Iterable[str]) -> None:
    """One line, sent at once."""
    sys.stdout.write("\t".join(map(one_line, cells)) + "\n")
    sys.stdout.flush()


def one_line(text: str) -> str:
    """Text without the characters that separate cells and rows."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
