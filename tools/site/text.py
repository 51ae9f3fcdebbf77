"""Markdown for generated pages: text from comments and docstrings as cells and paragraphs."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

_CODE: Final = re.compile(r"(`+[^`]*`+)")
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")


def escaped(text: str) -> str:
    """Return text in which characters that Markdown or HTML would interpret stand for themselves.

    Text between backticks stays as it is: it is code in comments, docstrings and Markdown alike.
    """
    parts = _CODE.split(text)
    return "".join(part if number % 2 else _escape(part) for number, part in enumerate(parts))


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_\[\]\\])", r"\\\1", text)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a comment, which blank lines part, each as one escaped line."""
    found = (" ".join(part.split()) for part in _BLANK_LINE.split(text))
    return [escaped(part) for part in found if part]


def cell(text: str) -> str:
    """Return a comment as one cell of a table."""
    return "<br><br>".join(paragraphs(text)).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of finished cells."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
