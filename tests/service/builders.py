"""Builders for tests of the service: metrics, repositories, damaged graphs."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from prometheus_client import CollectorRegistry

from service.contract import spec
from service.engine.delivery import deliver
from service.engine.sequence import Result
from service.models.repository import Entry, Repository
from service.observability.metrics import EngineMetrics, Metrics
from service.settings import Settings
from service.tasks.limits import Limits

LIMITS = Limits(items=8, text_length=200, observations=50, tokens=64, stop_strings=4, stop_length=10)
GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"


def engine_metrics() -> EngineMetrics:
    return Metrics(CollectorRegistry()).for_model("model")


def settings_of(repository: Path, **changes: Any) -> Settings:
    return Settings(repository=repository, threads=1, **changes)


def ignore_results(results: list[Result]) -> None:
    """Take what an engine posts and do nothing."""


def ignore_entry(entry: Entry) -> None:
    """Take a change of a repository and do nothing."""


def load_repository(folder: Path, metrics: Metrics | None = None, **changes: Any) -> Repository:
    """Everything in a folder admitted, results dropped. The caller stops it."""
    repository = Repository(
        settings_of(folder, **changes), metrics or Metrics(CollectorRegistry()), ignore_results
    )
    repository.load_all(ignore_entry)
    return repository


def serve_repository(folder: Path, **changes: Any) -> Repository:
    """The same, results delivered into the running event loop."""
    loop = asyncio.get_running_loop()

    def post(results: list[Result]) -> None:
        loop.call_soon_threadsafe(deliver, results)

    repository = Repository(settings_of(folder, **changes), Metrics(CollectorRegistry()), post)
    repository.load_all(ignore_entry)
    return repository


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Overwrite a version's file and make model.json agree with its hash."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / spec.SPEC_FILE).read_text())["files"]
    spec_of(folder, files=files | {name: hashlib.sha256(data).hexdigest()})


def spec_of(folder: Path, **changes: object) -> dict[str, Any]:
    """model.json as plain data, after changing top-level fields."""
    path = folder / spec.SPEC_FILE
    described: dict[str, Any] = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(described))
    return described


def edit_graph(folder: Path, change: Callable[[onnx.ModelProto], None], name: str = GRAPH) -> None:
    """Change a version's graph and make model.json agree with its hash."""
    model = onnx.load(folder / name)
    change(model)
    replace_file(folder, name, model.SerializeToString())
