"""The rooms of the service: who may import whom. Read from the source, so that an import inside a function
counts, too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parent

# Lowest first: a module imports from its own layer and those below. The scheduler, the sequence and the
# sampler are plain: they know nothing of the service around them, and metrics may name the kinds of ticks.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "service.errors",
        "service.contract",
        "service.cpus",
        "service.observability.logs",
        "service.http",
        "service.models.leases",
        "service.security.secrets_files",
    ),
    (
        "service.engine.sampling",
        "service.engine.sequence",
        "service.engine.fairness",
        "service.engine.scheduler",
        "service.settings",
        "service.security",
    ),
    ("service.observability",),
    ("service.runtime",),
    ("service.engine",),
    ("service.tasks",),
    ("service.models",),
    ("service.api",),
    ("service.server",),
    ("service.__main__",),
)
PURE = tuple(
    f"service.engine.{name}"
    for name in (
        "deadlines",
        "fairness",
        "feed",
        "limits",
        "pace",
        "plan",
        "prompts",
        "sampling",
        "scheduler",
        "sequence",
        "slots",
    )
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
# Packages that hold nothing but a docstring have no layer of their own.
PACKAGES = {"service", *(f"service.{path.parent.name}" for path in ROOT.glob("*/__init__.py"))}
PLACED = [name for name in MODULES if name not in PACKAGES]


def imports_of(name: str) -> Iterator[str]:
    """Everything that a module imports, `from a import b` as a.b where that is a module of the service, else
    as a.
    """
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def layer_of(name: str) -> int:
    """The lowest layer that names the module itself, else that of its package."""
    for candidate in (name, name.rpartition(".")[0]):
        for index, layer in enumerate(LAYERS):
            if candidate in layer:
                return index
    raise AssertionError(f"{name} has no layer: give it one in LAYERS")


def users_of(*roots: str) -> set[str]:
    """Modules that import one of these packages."""
    return {
        name
        for name in MODULES
        for one in imports_of(name)
        if any(one == root or one.startswith(root + ".") for root in roots)
    }


@pytest.mark.parametrize("name", PLACED)
def test_imports_point_down(name: str) -> None:
    upward = [
        one for one in imports_of(name) if one.startswith("service.") and layer_of(one) > layer_of(name)
    ]
    assert upward == []


def test_packages_hold_nothing_but_a_docstring() -> None:
    for name in set(MODULES) - set(PLACED):
        assert [type(node) for node in ast.parse(MODULES[name].read_text()).body] == [ast.Expr]


def test_runtime_alone_knows_onnxruntime() -> None:
    assert users_of("onnxruntime") == {"service.runtime"}


def test_tracing_alone_knows_opentelemetry() -> None:
    assert users_of("opentelemetry") == {"service.observability.tracing"}


def test_api_and_server_alone_know_grpc_and_protobuf() -> None:
    allowed = {name for name in MODULES if name.startswith("service.api.")} | {
        "service.server",
        "service.security.tls",
    }
    assert users_of("grpc", "google", "grpc_health", "grpc_reflection", "grpc_status", "seqserve") <= allowed


@pytest.mark.parametrize("name", PURE)
def test_plain_parts_of_the_engine_know_no_clock_thread_or_loop(name: str) -> None:
    forbidden = {"asyncio", "threading", "time", "datetime", "onnxruntime", "concurrent", "random", "secrets"}
    assert {one.partition(".")[0] for one in imports_of(name)} & forbidden == set()


def test_scheduler_knows_no_arrays() -> None:
    assert {one.partition(".")[0] for one in imports_of("service.engine.scheduler")} == {
        "collections",
        "enum",
        "service",
        "typing",
    }


def test_tasks_and_engine_know_no_settings() -> None:
    assert not {
        name
        for name in users_of("service.settings")
        if name.startswith(("service.engine", "service.tasks", "service.api"))
    }


def test_nothing_imports_training_or_its_libraries() -> None:
    assert users_of("training", "torch", "onnx", "sklearn", "tests") == set()


def test_serving_loads_neither_torch_nor_onnx_nor_training_nor_opentelemetry() -> None:
    """In a fresh interpreter: what `python -m service` holds in memory. OpenTelemetry comes only where traces
    are wanted.
    """
    unwanted = {"torch", "training", "onnx", "sklearn", "opentelemetry"}
    script = f"import sys, service.server; print(sorted({{name.partition('.')[0] for name in sys.modules}} & {unwanted}))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    assert ran.stdout == "[]\n"
    assert ran.stderr == ""
