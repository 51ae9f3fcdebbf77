"""Tables: drawn on a terminal, otherwise tab-separated values with a header line."""

import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Column(NamedTuple):
    """A column: its title, and whether it has numbers (right-aligned) or text (cut to fit)."""

    title: str
    is_number: bool = False
    is_text: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows that have one cell per column."""
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
        table.add_row(*(Text(escape(cell)) for cell in row))
    Console().print(table)


def print_tab_separated(cells: Iterable[str]) -> None:
    """Print one line and flush it."""
    sys.stdout.write("\t".join(map(escape, cells)) + "\n")
    sys.stdout.flush()


def escape(text: str) -> str:
    """Escape backslashes and the characters that separate cells and rows."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
