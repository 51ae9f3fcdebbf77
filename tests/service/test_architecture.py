"""Tests of the rooms of the service: which may import which, and how large their parts are.

They are read from the source, so that an import inside a function counts, too. The arrows are an allow-list:
what is not drawn in `ARROWS` is forbidden, and drawing one more is a decision.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import seqserve
import service

ROOT = Path(service.__file__).parent
CLIENT = Path(seqserve.__file__).parent

# The rooms that each may import, lowest first. A room is a folder of service/ or a module beside the folders.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "addresses": set(),
    "signals": set(),
    "contract": set(),
    "settings": {"addresses", "contract"},
    "observability": set(),
    # It carries calls of anything.
    "transport": set(),
    "runtime": {"errors", "contract"},
    "engine": {"errors", "observability", "transport", "runtime"},
    "tasks": {"errors", "observability", "contract", "engine"},
    "security": {"errors", "contract", "tasks"},
    "models": {"errors", "signals", "settings", "observability", "contract", "runtime", "engine", "tasks"},
    "api": {
        "addresses",
        "errors",
        "observability",
        "transport",
        "contract",
        "engine",
        "tasks",
        "security",
        "models",
    },
    "http": {"addresses"},
    "server": {
        "addresses",
        "signals",
        "settings",
        "observability",
        "contract",
        "security",
        "models",
        "api",
        "http",
    },
    # It starts the process of the trials before the server is imported.
    "program": {"signals", "settings", "observability", "transport", "models", "server"},
    # It checks a version folder without a server.
    "check": {"settings", "contract", "models"},
    # It runs a version without a server.
    "bulk": {"errors", "settings", "observability", "transport", "engine", "tasks", "models"},
    # It holds signals before anything else is imported.
    "__main__": {"signals", "contract", "program", "check"},
}
# Modules that belong to the room of another.
BESIDE = {
    "cpus": "settings",
    "flags": "settings",
    "memory": "settings",
    "load_errors": "runtime",
    "parts": "server",
    "drain": "server",
    "http_door": "server",
}
PURE = tuple(
    f"service.engine.{name}"
    for name in (
        "chunks",
        "core",
        "deadlines",
        "estimator",
        "inbox",
        "length_queue",
        "limits",
        "prefill_buffer",
        "prompt_cache",
        "queue",
        "request",
        "sampling",
        "scheduler",
        "slots",
        "ticks",
        "whole_arrays",
        "whole_batches",
    )
)
MAX_FUNCTION_LINES = 40
MAX_FIELDS = 12
# In lines of 110.
MAX_ENGINE_LINES = 4_640
# The first words of a fragment; a docstring is a sentence.
FRAGMENT = re.compile(
    r"(Of|What|Whether|Those|Whoever|Who|Where|Until|Since|Nobody|As|How(?! many)|From|To|By|In|On)\s"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
# Packages hold nothing but a docstring.
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def room_of(name: str) -> str:
    """Return the room of a module of the service, as service.api.errors."""
    room = name.split(".")[1]
    return BESIDE.get(room, room)


def imports_of(name: str) -> Iterator[str]:
    """Yield everything that a module imports, `from a import b` as a.b where that is a module of the service,
    else as a.
    """
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
    rooms = {room_of(one) for one in imports_of(name) if one.startswith("service.")}
    return rooms - {room_of(name)}


def users_of(*roots: str) -> set[str]:
    """Return the modules that import one of these packages."""
    return {
        name
        for name in MODULES
        for one in imports_of(name)
        if any(one == root or one.startswith(root + ".") for root in roots)
    }


# Arrows.


def test_every_room_is_in_the_list() -> None:
    assert {room_of(name) for name in MODULES if name != "service"} == set(ARROWS)


@pytest.mark.parametrize("name", sorted(set(MODULES) - PACKAGES))
def test_module_imports_from_the_rooms_that_its_own_may(name: str) -> None:
    assert arrows_of(name) - ARROWS[room_of(name)] == set()


def test_every_arrow_of_the_list_is_needed() -> None:
    used: dict[str, set[str]] = {room: set() for room in ARROWS}
    for name in set(MODULES) - PACKAGES:
        used[room_of(name)] |= arrows_of(name)
    assert {room: rooms - used[room] for room, rooms in ARROWS.items() if rooms - used[room]} == {}


def test_rooms_stand_on_one_floor() -> None:
    """No room is both above and below another, and the list has the lower ones first."""
    tuple(TopologicalSorter(ARROWS).static_order())  # raises where there is a circle
    order = list(ARROWS)
    for room, rooms in ARROWS.items():
        assert all(order.index(one) < order.index(room) for one in rooms), room


def test_packages_hold_nothing_but_a_docstring() -> None:
    for name in PACKAGES:
        assert [type(node) for node in TREES[name].body] == [ast.Expr], name


# Libraries.


def test_runtime_alone_knows_onnxruntime() -> None:
    assert users_of("onnxruntime") == {"service.runtime"}


def test_tracing_alone_knows_opentelemetry() -> None:
    assert users_of("opentelemetry") == {"service.observability.tracing"}


def test_transport_api_and_server_alone_know_grpc_and_protobuf() -> None:
    allowed = {name for name in MODULES if name.startswith(("service.api.", "service.transport."))} | {
        "service.server",
        "service.parts",
        "service.security.tls",
        # Its answers have the client's classes, which know neither.
        "service.bulk",
    }
    assert users_of("grpc", "google", "grpc_health", "grpc_reflection", "grpc_status", "seqserve") <= allowed


@pytest.mark.parametrize("name", PURE)
def test_plain_parts_of_the_engine_know_no_clock_thread_or_loop(name: str) -> None:
    forbidden = {"asyncio", "threading", "time", "datetime", "onnxruntime", "concurrent", "random", "secrets"}
    assert {one.partition(".")[0] for one in imports_of(name)} & forbidden == set()


def test_scheduler_knows_no_arrays() -> None:
    assert "service.engine.scheduler" not in users_of("numpy")


def test_nothing_imports_training_or_its_libraries() -> None:
    assert users_of("training", "torch", "onnx", "sklearn", "tests") == set()


def test_serving_loads_neither_torch_nor_onnx_nor_training_nor_opentelemetry() -> None:
    """In a fresh interpreter: what `python -m service` holds in memory. OpenTelemetry comes only where traces
    are wanted.
    """
    unwanted = {"torch", "training", "onnx", "sklearn", "opentelemetry"}
    script = (
        "import sys, service.server; "
        f"print(sorted({{name.partition('.')[0] for name in sys.modules}} & {unwanted}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert ran.stdout == "[]\n"
    assert ran.stderr == ""


# Sizes.


def functions_of(tree: ast.Module) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function))


def num_lines(function: Function) -> int:
    """Return the lines of a function, decorators and docstring included."""
    first = min(node.lineno for node in (function, *function.decorator_list))
    assert function.end_lineno is not None
    return function.end_lineno - first + 1


def test_no_function_is_longer_than_a_screen() -> None:
    found = {
        f"{name}.{function.name}": num_lines(function)
        for name, tree in TREES.items()
        for function in functions_of(tree)
        if num_lines(function) > MAX_FUNCTION_LINES
    }
    assert found == {}


def fields_of(node: ast.ClassDef) -> set[str]:
    """Return the fields that a class declares, as a dataclass does, or assigns in its constructor."""
    fields = set()
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            fields.add(part.target.id)
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
            fields |= {
                inner.attr
                for inner in ast.walk(part)
                if isinstance(inner, ast.Attribute)
                and isinstance(inner.ctx, ast.Store)
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            }
    return fields


def test_no_class_of_engine_and_tasks_has_too_many_fields() -> None:
    found = {
        f"{name}.{node.name}": len(fields_of(node))
        for name, tree in TREES.items()
        if name.startswith(("service.engine", "service.tasks"))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and len(fields_of(node)) > MAX_FIELDS
    }
    assert found == {}


def test_engine_can_be_read_in_an_hour() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "engine").glob("*.py"))
    assert lines <= MAX_ENGINE_LINES


# Docstrings.


def docstrings_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of a module and of everything in it that has one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "name", "module"), text


def written() -> Iterator[Path]:
    """Yield the modules of the service and of the client that people have written."""
    for root in (ROOT, CLIENT):
        yield from (path for path in sorted(root.rglob("*.py")) if "_pb2" not in path.name)


def test_no_docstring_opens_with_a_fragment() -> None:
    found = [
        f"{path.relative_to(ROOT.parent)}, {name}: {text.splitlines()[0]}"
        for path in written()
        for name, text in docstrings_of(path)
        if FRAGMENT.match(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "is_fragment"),
    [
        ("What a caller asks for.", True),
        ("How a row is picked.", True),
        ("How many rows wait.", False),
        ("Whatever comes is taken.", False),
        ("Onnx graphs are read.", False),
        ("Return the rows.", False),
    ],
)
def test_fragment_is_known_by_its_first_word(text: str, is_fragment: bool) -> None:
    assert bool(FRAGMENT.match(text)) is is_fragment
