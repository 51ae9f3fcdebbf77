"""Reads sentences whose tokens have tags: a token a line with its tag, or JSON lines."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from training.data.files import iter_lines
from training.data.sources import Source
from training.errors import TrainingError

FEWEST_SENTENCES = 20
_DOCUMENT = "-DOCSTART-"
_EXPECTED = 'expected {"tokens": [...], "tags": [...]} with a tag for each token'


class Sentence(NamedTuple):
    """The tokens of a sentence, without spaces in them, and as many tags."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TaggedChoice:
    """A file of sentences, and which of its columns mean what.

    Attributes:
        source: the file.
        token_column, tag_column: of a file with a token a line, 1 being the first column; 0: the last.
    """

    source: Source
    token_column: int = 1
    tag_column: int = 0

    def facts(self) -> dict[str, str]:
        """Return the choice by name, for a checkpoint."""
        return {"token_column": str(self.token_column), "tag_column": str(self.tag_column)}


def read_tagged(choice: TaggedChoice) -> list[Sentence]:
    """Read the sentences of a file, each different one once.

    JSON lines begin with a brace. Otherwise a line holds a token and its tag, with tabs or spaces between
    them, and blank lines stand between sentences; comments (`# ...` where there are tabs) and the lines
    -DOCSTART- of CoNLL 2003 are left out.

    Raises:
        TrainingError: it cannot be read, a token has no tag, sentences are too few, or of one tag.
    """
    path = choice.source.path
    lines = list(enumerate(iter_lines(path, choice.source.encoding), 1))
    first = next((line for _, line in lines if line.strip()), "")
    found = _json_lines(path, lines) if first.lstrip().startswith("{") else _columns(choice, lines)
    sentences = list(dict.fromkeys(found))
    if len(sentences) < FEWEST_SENTENCES:
        raise TrainingError(
            f"{path}: expected at least {FEWEST_SENTENCES} different sentences, a blank line between two, "
            f"to train on and hold out from, found {len(sentences)}"
        )
    tags = {tag for one in sentences for tag in one.tags}
    if len(tags) < 2:
        raise TrainingError(f"{path}: expected two or more different tags, found {', '.join(tags)} alone")
    return sentences


def _columns(choice: TaggedChoice, lines: list[tuple[int, str]]) -> Iterator[Sentence]:
    path = choice.source.path
    has_tabs = choice.source.delimiter == "\t" or any("\t" in line for _, line in lines)
    delimiter = choice.source.delimiter or ("\t" if has_tabs else "")
    rows: list[tuple[str, str]] = []
    for number, line in lines:
        text = line.rstrip("\r\n")
        if not text.strip():
            if rows:
                yield _sentence(rows)
            rows = []
        elif not (has_tabs and text.startswith("#") and "\t" not in text) and not text.startswith(_DOCUMENT):
            rows.append(_row(choice, f"{path}: line {number}", text, delimiter))
    if rows:
        yield _sentence(rows)


def _sentence(rows: list[tuple[str, str]]) -> Sentence:
    return Sentence(tuple(token for token, _ in rows), tuple(tag for _, tag in rows))


def _row(choice: TaggedChoice, place: str, text: str, delimiter: str) -> tuple[str, str]:
    cells = [cell.strip() for cell in text.split(delimiter)] if delimiter else text.split()
    if len(cells) < 2:
        raise TrainingError(f"{place}: expected a token and its tag, found {text[:50]!r}")
    pair = []
    for option, column in (("--token-column", choice.token_column), ("--tag-column", choice.tag_column)):
        if column > len(cells):
            raise TrainingError(f"{place}: {option}: expected at least {column} columns, found {len(cells)}")
        pair.append(cells[column - 1])
    token, tag = pair
    _check(place, token, tag)
    return token, tag


def _check(place: str, token: str, tag: str) -> None:
    if not token or re.search(r"\s", token):
        raise TrainingError(f"{place}: expected a token without spaces, found {token!r}")
    if not tag:
        raise TrainingError(f"{place}: expected a tag for {token!r}, found none")


def _json_lines(path: Path, lines: list[tuple[int, str]]) -> Iterator[Sentence]:
    for number, line in lines:
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        try:
            value: Any = json.loads(line)
        except ValueError as error:
            raise TrainingError(f"{place}: {_EXPECTED}, found no JSON: {error}") from error
        if not isinstance(value, dict) or not all(
            isinstance(value.get(key), list) and all(isinstance(one, str) for one in value[key])
            for key in ("tokens", "tags")
        ):
            raise TrainingError(f"{place}: {_EXPECTED}, both lists of strings, found {line.strip()[:50]!r}")
        tokens, tags = value["tokens"], value["tags"]
        if not tokens or len(tokens) != len(tags):
            raise TrainingError(f"{place}: {_EXPECTED}, found {len(tokens)} tokens and {len(tags)} tags")
        for token, tag in zip(tokens, tags, strict=True):
            _check(place, token, tag)
        yield Sentence(tuple(tokens), tuple(tag.strip() for tag in tags))
