"""Writes names that others gave, such as labels, columns and files, as plain text in Markdown."""

import re
from collections.abc import Iterable, Sequence

from seqserve.cli.output import escape_controls

# What begins emphasis, code, a link, an image, HTML or an entity, and what separates the cells of a table.
_SPECIAL = re.compile(r"[\\`*\[\]|~]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: in a paragraph or in a cell of a table."""
    return _SPECIAL.sub(r"\\\g<0>", escape_controls(" ".join(text.split())))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain texts; all columns but the first are numbers."""
    line = ["---", *("---:" for _ in head[1:])]
    lines = [list(map(plain, head)), line, *(list(map(plain, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def fenced(text: str, language: str) -> str:
    """Return a block of code that ends where the text ends, whatever backticks are in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
