"""The commands of README.md and docs/, and the comparison of what a page shows with what came out."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.process import ROOT

_FENCE: Final = re.compile(r"^```(\w*)\s*$")
_COMMAND_LANGUAGES: Final = ("sh", "bash", "console")
_HERE_DOCUMENT: Final = re.compile(r"<<-?\s*'?(\w+)'?")
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_TIME: Final = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?= ?(?:us|ms|s|seconds)\b)")
_TOLERANCE: Final = 1e-3
_ANYTHING: Final = "..."


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page.

    Attributes:
        page: path from the root of the repository.
        line: where it begins, from 1.
        text: as a shell takes it; several lines if it is continued.
        output: what the page shows below it; None: nothing.
    """

    page: str
    line: int
    text: str
    output: str | None

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README.md and every page under docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def commands() -> list[Command]:
    """Every command of every page, in their order."""
    return [
        command for page in pages() for command in commands_of(str(page.relative_to(ROOT)), page.read_text())
    ]


def commands_of(page: str, text: str) -> list[Command]:
    """The commands of fenced blocks that are marked `sh`, `bash` or `console`: in the last one alone, those
    behind `$ `, with their output below.
    """
    found: list[Command] = []
    language: str | None = None
    block: list[str] = []
    started = 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            block.append(line)
        elif language is None:
            language, block, started = fence[1], [], number + 1
        else:
            if language in _COMMAND_LANGUAGES:
                found += _of_block(page, started, block, prompted=language == "console")
            language = None
    assert language is None, f"{page}: a block is not closed"
    return found


def _of_block(page: str, started: int, lines: list[str], *, prompted: bool) -> list[Command]:
    found: list[Command] = []
    index = 0
    while index < len(lines):
        if prompted and not lines[index].startswith("$ "):
            raise AssertionError(
                f"{page}:{started + index}: expected a command behind '$ ', found {lines[index]!r}"
            )
        first = index
        text = lines[index].removeprefix("$ ") if prompted else lines[index]
        index += 1
        while not is_whole(text):
            assert index < len(lines), f"{page}:{started + first}: the command does not end"
            text += "\n" + lines[index]
            index += 1
        output: list[str] = []
        while prompted and index < len(lines) and not lines[index].startswith("$ "):
            output.append(lines[index])
            index += 1
        if text.strip() and not text.lstrip().startswith("#"):
            found.append(Command(page, started + first, text, "\n".join(output) if output else None))
    return found


def is_whole(text: str) -> bool:
    """Whether a shell would not wait for another line: no open quote, backslash or here-document."""
    if text.endswith("\\"):
        return False
    here = _HERE_DOCUMENT.search(text)
    if here is not None:
        return text.splitlines()[-1].strip() == here[1]
    quote = ""
    escaped = False
    for place, character in enumerate(text):
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (place == 0 or text[place - 1].isspace()):
            break
    return not quote


def is_as_shown(shown: str, found: str) -> bool:
    """Whether output is what a page shows: `...` stands for anything, spaces count as one, numbers may differ
    by a thousandth, and times at will.
    """
    return _match(
        [one for one in map(_Line, shown.splitlines()) if one.text],
        [one for one in map(_Line, found.splitlines()) if one.text],
    )


class _Line:
    """A line with its spaces made one."""

    def __init__(self, line: str) -> None:
        self.text = " ".join(line.split())

    @property
    def is_anything(self) -> bool:
        return self.text == _ANYTHING

    def shows(self, found: "_Line") -> bool:
        """Whether the found line is this one."""
        mine, theirs = (_TIME.sub("TIME", one.text) for one in (self, found))
        pattern = "".join(
            ".*" if part == _ANYTHING else "(-?[0-9.e+-]+)" if _NUMBER.fullmatch(part) else re.escape(part)
            for part in re.split(rf"({_NUMBER.pattern}|\.\.\.)", mine)
        )
        match = re.fullmatch(pattern, theirs)
        if match is None:
            return False
        try:
            return all(
                _is_near(one, other) for one, other in zip(_NUMBER.findall(mine), match.groups(), strict=True)
            )
        except ValueError:
            return False


def _is_near(shown: str, found: str) -> bool:
    if shown == found:
        return True
    if re.fullmatch(r"-?\d+", shown):
        return False
    return abs(float(shown) - float(found)) <= _TOLERANCE * abs(float(shown))


def _match(shown: list[_Line], found: list[_Line]) -> bool:
    """Whether all lines fit in order, a line `...` standing for any number of them."""
    reached = {0}
    for line in shown:
        if line.is_anything:
            reached = set(range(min(reached), len(found) + 1)) if reached else set()
        else:
            reached = {place + 1 for place in reached if place < len(found) and line.shows(found[place])}
    return len(found) in reached
