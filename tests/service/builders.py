"""Builders for tests of the service: metrics, repositories, damaged graphs."""

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import pytest
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.network import Network
from service.engine.streaming import Submitter
from service.models.choices import Choices
from service.models.repository import Repository
from service.models.trial import Trial
from service.models.trial_child import outcome
from service.observability.metrics import EngineMetrics, Metrics
from service.settings import Settings
from service.tasks.codecs import codec_of
from service.tasks.encoding import Encoder
from service.tasks.generation import GenerationTask
from service.tasks.initial import FirstState
from service.tasks.inline_time import InlineTime
from service.tasks.limits import Limits
from service.tasks.text_work import TextWork
from service.tasks.workers import Workers
from service.transport.loop import CompletionLoop

LIMITS = Limits(items=8, text_length=200, observations=50, tokens=64, stop_strings=4, stop_length=10)
GRAPH = "model.onnx"
INT8_GRAPH = "model.int8.onnx"


def engine_metrics() -> EngineMetrics:
    return Metrics(CollectorRegistry()).for_model("model")


_WORKERS = Workers(1)


def generation_task(
    model: str,
    section: spec.Generation,
    engine: Submitter,
    limits: Limits = LIMITS,
    tokenizer: Tokenizer | None = None,
    first: FirstState | None = None,
) -> GenerationTask:
    """Make the task of a language model; a tokenizer's texts wait for one thread of all tests."""
    codec = codec_of(model, section, tokenizer)
    encoder = Encoder(codec, TextWork(_WORKERS, InlineTime()))
    first = first or FirstState(Network("chunk", ()), None, _WORKERS)
    return GenerationTask(section, codec, engine, engine_metrics(), limits, encoder, first)


class TrialHere(Trial):
    """A trial in this process: for tests of what follows a trial, which need no limits."""

    def _ask(self, *folders: Path) -> dict[str, str]:
        return outcome(Choices.of(self._settings), *folders)


def settings_of(repository: Path, **changes: Any) -> Settings:
    return Settings(repository=repository, threads=1, **changes)


class IdleLoop(CompletionLoop):
    """An event loop that runs nothing: what is posted to it is dropped."""

    def __init__(self) -> None:
        self._closed = True

    def call_soon_threadsafe(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        pass


def loop_here() -> asyncio.AbstractEventLoop:
    """Return the running event loop, or one that runs nothing."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return IdleLoop()


def ignore_change() -> None:
    """Take the news of a change of a repository and do nothing."""


def repository_of(
    folder: Path, metrics: Metrics | None = None, kind: type[Trial] = TrialHere, **changes: Any
) -> Repository:
    """Make a repository that delivers into the running event loop, if any; nothing is loaded yet."""
    settings = settings_of(folder, **changes)
    return Repository(settings, metrics or Metrics(CollectorRegistry()), loop_here(), kind(settings))


def load_repository(folder: Path, metrics: Metrics | None = None, **changes: Any) -> Repository:
    """Make a repository and load everything in its folder. The caller stops it."""
    repository = repository_of(folder, metrics, **changes)
    repository.load_all(ignore_change)
    return repository


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Overwrite a version's file and make model.json agree with its hash."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / spec.SPEC_FILE).read_text())["files"]
    spec_of(folder, files=files | {name: hashlib.sha256(data).hexdigest()})


def spec_of(folder: Path, **changes: object) -> dict[str, Any]:
    """Change top-level fields of model.json and return it as plain data."""
    path = folder / spec.SPEC_FILE
    described: dict[str, Any] = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(described))
    return described


def edit_graph(folder: Path, change: Callable[[onnx.ModelProto], None], name: str = GRAPH) -> None:
    """Change a version's graph and make model.json agree with its hash."""
    model = onnx.load(folder / name)
    change(model)
    replace_file(folder, name, model.SerializeToString())


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Have folders be without the right to list them, which the superuser of a test would always have."""
    iterdir, scandir = Path.iterdir, os.scandir

    def refuse(path: Any) -> None:
        if Path(path) in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def listed(path: Path) -> Iterator[Path]:
        refuse(path)
        return iter(list(iterdir(path)))

    def scanned(path: Any = ".") -> Any:
        refuse(path)
        return scandir(path)

    monkeypatch.setattr(Path, "iterdir", listed)
    monkeypatch.setattr("os.scandir", scanned)


def refuse_threads(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Have the next so many threads of `run_in_thread` not be started; the list counts those down."""
    left = [count]

    class Executor(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            if left[0]:
                left[0] -= 1
                raise RuntimeError("can't start new thread")
            super()._adjust_thread_count()

    monkeypatch.setattr("service.models.threads.ThreadPoolExecutor", Executor)
    monkeypatch.setattr("service.models.threads._PAUSE_S", 0.01)
    return left
