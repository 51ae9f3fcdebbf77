"""docs/architecture.md agrees with the code: diagrams, names of modules and functions, lines of files."""

import ast
import re
from graphlib import CycleError
from pathlib import Path

import pytest

from tests.integration.process import ROOT
from tools.architecture import (
    PAGE,
    PARTS,
    Arrows,
    arrows,
    diagram,
    floors,
    num_lines,
    reading_list,
    with_diagrams,
)

TEXT = PAGE.read_text()
SERVICE = ROOT / "service"
MODULES = [
    str(path.relative_to(SERVICE)) for path in sorted(SERVICE.rglob("*.py")) if path.name != "__init__.py"
]
ROWS = re.findall(r"^\| `([\w/]+\.py)` \| (.+) \|$", TEXT, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", TEXT)))


def names_in(path: Path) -> set[str]:
    """Classes and functions of a module, and the methods of its classes as Class.method."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, definitions)]
    inner = {
        f"{node.name}.{one.name}"
        for node in top
        if isinstance(node, ast.ClassDef)
        for one in node.body
        if isinstance(one, definitions)
    }
    return {node.name for node in top} | inner


def test_diagrams_are_current() -> None:
    assert with_diagrams(TEXT) == TEXT, "docs/architecture.md is not current: run 'make docs'"


def test_every_module_of_the_service_has_one_row() -> None:
    assert sorted(name for name, _ in ROWS) == sorted(MODULES)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=":".join)
def test_named_function_exists(file: str, name: str) -> None:
    assert name in names_in(SERVICE / file)


def test_page_names_functions_of_most_steps() -> None:
    """The test above would pass on a page that names none."""
    assert len(NAMED) > 40


def test_reading_list_names_each_file_once_and_in_order() -> None:
    begin, end = TEXT.index("<!-- begin: reading"), TEXT.index("<!-- end: reading")
    rows = re.findall(r"^\| (\d+) \| `(.+?)` \|", TEXT[begin:end], re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len({file for _, file in rows}) == len(rows)
    assert TEXT[begin:end].count("| total |") == 1


@pytest.mark.parametrize("file", reading_list(TEXT))
def test_lines_of_the_reading_list_are_about_right(file: str) -> None:
    """`make docs` counts them anew; a small edit of a module should not fail a test."""
    shown = reading_list(TEXT)[file]
    assert num_lines(file) == pytest.approx(shown, rel=0.2, abs=20), "run 'make docs'"


@pytest.mark.parametrize("name", PARTS)
def test_parts_import_only_parts_on_lower_floors(name: str) -> None:
    found = arrows(PARTS[name])
    floor_of = {part: floor for floor, level in enumerate(floors(found)) for part in level}
    assert all(floor_of[part] < floor_of[target] for part in found for target in found[part])


def test_a_part_is_drawn_right_below_the_lowest_that_imports_it() -> None:
    found: Arrows = {"top": {"middle", "low", "side"}, "middle": {"low"}, "low": set(), "side": set()}
    assert floors(found) == [["top"], ["middle", "side"], ["low"]]
    assert diagram(found).splitlines() == [
        "+--------+",
        "| top    | -> middle, side, low",
        "+--------+",
        "| middle | -> low",
        "| side   |",
        "+--------+",
        "| low    |",
        "+--------+",
    ]


def test_parts_that_import_each_other_are_refused() -> None:
    with pytest.raises(CycleError):
        floors({"one": {"other"}, "other": {"one"}})
