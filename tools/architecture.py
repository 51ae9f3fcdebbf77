"""Write what docs/architecture.md derives from the code: `python -m tools.architecture`, or `make docs`.

Two parts of the page are generated, each between a begin and an end marker: diagrams of which part imports
which, read from the source (so imports inside functions and for type checkers count), and the lines of the
files in the reading list. The rest of the page is written by hand.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "architecture.md"

# By part, the parts that it imports.
Arrows = dict[str, set[str]]

_PACKAGES: Final = ("seqserve", "service", "training", "benchmarks", "tools")
_READING: Final = "reading"
_READING_ROW: Final = re.compile(r"^(?P<head>\| \d+ \| `(?P<file>[^`]+)` \| )(?P<lines>\d+)", re.MULTILINE)
_TOTAL_ROW: Final = re.compile(r"^(?P<head>\| +\| total \| )\d+", re.MULTILINE)
_WIDTH: Final = 110


def arrows(part_of: Callable[[str], str | None]) -> Arrows:
    """Return which part imports which.

    Args:
        part_of: returns the part that a module belongs to, by its dotted name; None: it is not drawn.
    """
    found: Arrows = {}
    for name, path in _modules().items():
        if (part := part_of(name)) is None:
            continue
        targets = {part_of(target) for target in _imports_of(path)}
        found.setdefault(part, set()).update(target for target in targets if target not in (None, part))
    return found


# The export contract, the reading of tables, and the standard streams of commands.
SHARED: Final = ("service.contract", "seqserve.tables", "seqserve.cli.output")


def repository_part(name: str) -> str | None:
    """Return a module's folder at the top of the repository.

    What several folders use is a part of its own.
    """
    return next((part for part in SHARED if name.startswith(part)), name.partition(".")[0])


def service_part(name: str) -> str | None:
    """Return a module's folder in service/, or the module itself where it lies in no folder."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if top == "service" else None


def training_part(name: str) -> str | None:
    """Return a module's folder in training/, or the module itself where it lies in no folder."""
    top, _, rest = name.partition(".")
    return rest.partition(".")[0] or None if top == "training" else None


def engine_part(name: str) -> str | None:
    """Return a module of service/engine/ without the folder's name."""
    return name.removeprefix("service.engine.") if name.startswith("service.engine.") else None


PARTS: Final[Mapping[str, Callable[[str], str | None]]] = {
    "repository": repository_part,
    "service": service_part,
    "engine": engine_part,
    "training": training_part,
}


def floors(parts: Arrows) -> list[list[str]]:
    """Sort parts into floors, the highest first; each part is one floor below the lowest that imports it.

    Raises:
        CycleError: parts import each other.
    """
    importers: Arrows = {part: set() for part in parts}
    for part, targets in parts.items():
        for target in targets:
            importers[target].add(part)
    depth: dict[str, int] = {}
    for part in TopologicalSorter(importers).static_order():
        depth[part] = max((depth[one] + 1 for one in importers[part]), default=0)
    return [sorted(one for one in depth if depth[one] == floor) for floor in range(max(depth.values()) + 1)]


def diagram(parts: Arrows) -> str:
    """Draw parts as text: a box for each floor, beside each part what it imports, all of it further down."""
    levels = floors(parts)
    order = [part for level in levels for part in level]
    width = max(map(len, order))
    rule = f"+-{'-' * width}-+"
    lines = [rule]
    for level in levels:
        for part in level:
            lines += _row(part, sorted(parts[part], key=order.index), width)
        lines.append(rule)
    return "\n".join(lines)


def _row(part: str, targets: Iterable[str], width: int) -> Iterator[str]:
    names = ", ".join(targets)
    wrapped = textwrap.wrap(names, _WIDTH - width - 8, break_on_hyphens=False) or [""]
    for number, line in enumerate(wrapped):
        arrow = "" if not line else " -> " if number == 0 else "    "
        yield f"| {part if number == 0 else '':{width}} |{arrow}{line}"


def with_diagrams(text: str) -> str:
    """Return the page's text with diagrams of the code as it is."""
    for name, part_of in PARTS.items():
        text = _replace(text, name, f"```\n{diagram(arrows(part_of))}\n```")
    return text


def reading_list(text: str) -> dict[str, int]:
    """Return the files of the reading list in order, each with its lines as the page has them."""
    rows = _READING_ROW.finditer(_block(text, _READING))
    return {row["file"]: int(row["lines"]) for row in rows}


def num_lines(file: str) -> int:
    """Return the lines of a file, by its path from the root of the repository."""
    return len((ROOT / file).read_text().splitlines())


def with_lines(text: str) -> str:
    """Return the page's text with the lines of each file in the reading list, and their total."""
    block = _block(text, _READING)
    total = sum(map(num_lines, reading_list(text)))
    block = _READING_ROW.sub(lambda row: f"{row['head']}{num_lines(row['file'])}", block)
    return _replace(text, _READING, _TOTAL_ROW.sub(lambda row: f"{row['head']}{total}", block))


def _replace(text: str, name: str, block: str) -> str:
    begin, end = _markers(text, name)
    return f"{text[:begin]}\n{block}\n{text[end:]}"


def _block(text: str, name: str) -> str:
    begin, end = _markers(text, name)
    return text[begin:end].strip("\n")


def _markers(text: str, name: str) -> tuple[int, int]:
    """Return where a generated part begins and ends.

    Raises:
        ValueError: a marker is missing.
    """
    begin = f"<!-- begin: {name}, written by tools/architecture.py -->"
    return text.index(begin) + len(begin), text.index(f"<!-- end: {name} -->")


@cache
def _modules() -> Mapping[str, Path]:
    """Return every module by its dotted name; a package goes by the name of its folder."""
    paths = (path for package in _PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {_name_of(path): path for path in paths}


def _name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(path: Path) -> Iterator[str]:
    """Iterate over the modules of this repository that a module imports."""
    known = _modules()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and (module := node.module) is not None and module in known:
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if inner in known else module


if __name__ == "__main__":
    PAGE.write_text(with_lines(with_diagrams(PAGE.read_text())))
