"""Tests of the rooms of training: which may import which, and how large their parts are.

They are read from the source, so that an import inside a function counts, too. The arrows are an allow-list:
what is not drawn in `ARROWS` is forbidden, and drawing one more is a decision.
"""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import training

ROOT = Path(training.__file__).parent

# The rooms that each may import, lowest first. A room is a folder of training/ or a module beside them.
_BASE = {"errors", "writing", "markdown"}
_MODEL = {*_BASE, "networks", "loop", "data"}
_RECIPE = {*_MODEL, "export", "recipes"}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "interrupts": set(),
    "markdown": set(),
    # It imports the standard library alone, before anything starts threads.
    "supervising": set(),
    "writing": set(),
    "failures": {"errors", "writing"},
    "networks": _BASE,
    "loop": {*_BASE, "networks"},
    "data": {*_BASE, "networks", "loop"},
    "export": _MODEL,
    "recipes": {*_MODEL, "export"},
    "evaluate": {*_RECIPE, "failures"},
    "convert": {*_RECIPE, "failures", "interrupts"},
    "lecture": _RECIPE,
    "shapes": {*_RECIPE, "lecture"},
    "commands": {*_RECIPE, "failures", "interrupts", "evaluate", "convert", "lecture", "shapes"},
    "__main__": {"interrupts", "supervising", "commands"},
}
# The environment has to be set before torch is imported; the others are the doors of what they hold.
PACKAGES_WITH_CODE = {"training", "training.convert.keras", "training.convert.pytorch"}
MAX_FUNCTION_LINES = 40
MAX_FILE_LINES = 400
# Files with more than one concept, still to be cut.
LONG_FILES = {"training.recipes.sentiment"}
# The steps of a whole recipe or conversion in order: reading on is worth more than a screen.
SKELETONS = {
    "training.convert.api._written",
    "training.convert.api.convert",
    "training.convert.checking.check_version",
    "training.loop.fit.fit",
    "training.recipes.charlm.train",
    "training.recipes.run.deliver",
    "training.recipes.sentiment.learn",
    "training.recipes.sentiment.train",
    "training.recipes.stock.train",
    "training.recipes.tokenlm._outcome",
    "training.shapes.delay.train",
}
# Declarations of options, each with its help.
OPTIONS = {
    "training.commands.forecast.train_forecast",
    "training.commands.options.with_common",
    "training.convert.command.convert_network",
}
# Nodes of a graph, tables or checks one after the other; still to be cut.
LONG_FUNCTIONS = {
    "training.convert.keras.graph_recurrent._operator",
    "training.convert.rungs.convolution._convolution",
    "training.convert.rungs.masking.compaction",
    "training.data.labels.read_labels",
    "training.data.series.choose",
    "training.data.series.describe",
    "training.data.series.read_series",
    "training.evaluate.compare.tables",
    "training.export.card.model_card",
    "training.export.chunks.outputs",
    "training.export.export._spec",
    "training.export.generation_graph._add_scan",
    "training.export.generation_sampler.add_sampler",
    "training.export.graph._recurrent_layer",
    "training.export.pictures.labels",
    "training.export.sequences.layers.recurrent_layer",
    "training.lecture.lesson.text_package",
    "training.recipes.forecast._outcome",
    "training.recipes.forecast_results._measures",
    "training.recipes.label_results.results",
    "training.recipes.sentiment.evaluate",
    "training.recipes.stock._results",
    "training.recipes.stock.evaluate",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def room_of(name: str) -> str:
    """Return the room of a module of training, as training.data.files."""
    return name.split(".")[1]


def imports_of(name: str) -> Iterator[str]:
    """Yield everything that a module imports, `from a import b` as a.b where that is a module of training."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def arrows_of(name: str) -> set[str]:
    """Return the other rooms that a module imports from."""
    rooms = {room_of(one) for one in imports_of(name) if one.startswith("training.")}
    return rooms - {room_of(name)}


# Arrows.


def test_every_room_is_in_the_list() -> None:
    assert {room_of(name) for name in MODULES if name != "training"} == set(ARROWS)


@pytest.mark.parametrize("name", sorted(set(MODULES) - PACKAGES))
def test_module_imports_from_the_rooms_that_its_own_may(name: str) -> None:
    assert arrows_of(name) - ARROWS[room_of(name)] == set()


def test_rooms_stand_on_one_floor() -> None:
    """No room is both above and below another, and the list has the lower ones first."""
    tuple(TopologicalSorter(ARROWS).static_order())  # raises where there is a circle
    order = list(ARROWS)
    for room, rooms in ARROWS.items():
        assert all(order.index(one) < order.index(room) for one in rooms), room


def test_contract_alone_is_imported_of_the_service() -> None:
    found = {
        name: one
        for name in MODULES
        for one in imports_of(name)
        if one.startswith("service.")
        and not one.startswith("service.contract.")
        and one != "service.contract"
    }
    assert found == {}


def test_packages_hold_nothing_but_a_docstring() -> None:
    for name in PACKAGES - PACKAGES_WITH_CODE:
        assert [type(node) for node in TREES[name].body] == [ast.Expr], name


# Sizes.


def functions_of(tree: ast.Module) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def num_lines(function: Function) -> int:
    """Return the lines of a function, decorators and docstring included."""
    first = min(node.lineno for node in (function, *function.decorator_list))
    assert function.end_lineno is not None
    return function.end_lineno - first + 1


def test_no_further_function_is_longer_than_a_screen() -> None:
    found = {
        f"{name}.{function.name}"
        for name, tree in TREES.items()
        for function in functions_of(tree)
        if num_lines(function) > MAX_FUNCTION_LINES
    }
    assert found - SKELETONS - OPTIONS - LONG_FUNCTIONS == set()


def test_lists_of_long_functions_name_functions_that_are_there() -> None:
    known = {f"{name}.{function.name}" for name, tree in TREES.items() for function in functions_of(tree)}
    assert (SKELETONS | OPTIONS | LONG_FUNCTIONS) - known == set()


def test_no_further_file_holds_more_than_one_concept() -> None:
    found = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > MAX_FILE_LINES}
    assert found - LONG_FILES == set()
