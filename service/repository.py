"""The folder of models: find versions, admit them, keep what serves. One bad version never stops another from serving."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import structlog
from tokenizers import Tokenizer

from service import spec
from service.admission import check_golden, check_signature, shape_of
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.sequence import Post
from service.errors import InvalidArgument, ModelFailure, ModelRefused, NotFound, NotReady, NotServed
from service.metrics import Metrics
from service.runtime import Runtime
from service.settings import Settings
from service.spec import Variant
from service.tasks import limits as task_limits
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import GenerationTask
from service.tuning import Tuning, Wish, is_faster, tune
from service.uses import Uses

_log = structlog.get_logger(__name__)

_GOLDEN_CHUNK = 4

Task = GenerationTask | ClassificationTask | ForecastingTask


class Status(Enum):
    """Where a version stands."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Served:
    """A version that takes requests.

    Attributes:
        spec, spec_text: model.json, typed and as it was read.
        variant: fp32 or int8.
        provider: onnxruntime's name of it.
        batch_invariant: answers are bit-identical in every batch, on this provider.
        golden_max_error: against PyTorch, seen at load.
        tuning: sizes of its ticks, and what they were measured to bring.
        engine: its engines.
        task: gives its numbers meaning.
        uses: requests that it has taken and not yet answered, and series that it keeps open.
    """

    spec: spec.ModelSpec
    spec_text: str
    variant: Variant
    provider: str
    batch_invariant: bool
    golden_max_error: float
    tuning: Tuning
    engine: EngineGroup
    task: Task
    uses: Uses = field(default_factory=Uses)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one version: its status, why it failed, and what serves."""

    name: str
    version: int
    status: Status
    message: str = ""
    served: Served | None = None


class Repository:
    """Versions by name and number.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: where loads and engines count.
        post: takes the engines' results.
    """

    def __init__(self, settings: Settings, metrics: Metrics, post: Post) -> None:
        self._settings = settings
        self._metrics = metrics
        self._post = post
        self._lock = threading.Lock()
        self._found = discover(settings.repository)
        newest = [Entry(name, versions[0], Status.LOADING) for name, versions in self._found.items()]
        self._entries = {(entry.name, entry.version): entry for entry in newest}
        # What requests have found; a new one with every change, so that nobody who looked before it keeps what he found there.
        self._serving: dict[tuple[str, int, spec.Task], Served] = {}

    def entries(self) -> list[Entry]:
        """Everything known, by name, newest version first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: (entry.name, -entry.version))

    def load_all(self, on_change: Callable[[Entry], None]) -> None:
        """Admit the newest versions of every model; where one is refused, the next older one is tried in its place.

        Args:
            on_change: called after each entry's change, in this thread.
        """
        for entry in self.entries():
            on_change(entry)
        for name, versions in self._found.items():
            good = 0
            for version in versions:
                self._set(Entry(name, version, Status.LOADING), on_change)
                entry = self._load(name, version)
                self._set(entry, on_change)
                good += entry.status is Status.READY
                if good == self._settings.versions:
                    break

    def find(self, name: str, version: int, task: spec.Task) -> Served:
        """The version that a request means.

        Args:
            name: of the model.
            version: 0: the newest one that serves.
            task: what the request wants of it.
        Raises:
            InvalidArgument: no name, or a model for another task.
            NotFound, NotReady, NotServed: nothing serves under that name and version.
        """
        serving = self._serving
        served = serving.get((name, version, task))
        if served is None:
            served = serving[name, version, task] = self._look_up(name, version, task)
        return served

    def _look_up(self, name: str, version: int, task: spec.Task) -> Served:
        if not name:
            raise InvalidArgument("model", f"expected the name of a model ({self._names(task)}), found none")
        served = self.get(name, version).served
        if served is None:
            raise self._not_served(name, version)
        if served.spec.task != task:
            raise InvalidArgument("model", f"expected a model for {task} ({self._names(task)}), found {name}, which is for {served.spec.task}")
        return served

    def get(self, name: str, version: int) -> Entry:
        """What is known of a version.

        Args:
            name: of the model.
            version: 0: the newest one that serves, or the newest one where none does.
        Raises:
            NotFound: nothing is known; the text names what there is.
        """
        versions = [entry for entry in self.entries() if entry.name == name]
        if not versions:
            raise NotFound(f"model {name!r}: expected one of {self._names() or 'none'}, found no such model")
        if version == 0:
            return next((entry for entry in versions if entry.served is not None), versions[0])
        for entry in versions:
            if entry.version == version:
                return entry
        serving = ", ".join(str(entry.version) for entry in versions if entry.served is not None) or "none"
        raise NotFound(f"model {name!r}: expected one of the versions that serve ({serving}), found {version}")

    def is_alive(self) -> bool:
        """Whether every engine that serves can go on."""
        return not any(entry.served.engine.has_failed for entry in self.entries() if entry.served is not None)

    def stop(self) -> None:
        """End every engine's thread."""
        for entry in self.entries():
            if entry.served is not None:
                entry.served.engine.stop()

    def _not_served(self, name: str, version: int) -> NotReady | NotServed:
        entry = self.get(name, version)
        if entry.status is Status.LOADING:
            return NotReady(f"model {name} version {entry.version} is still loading")
        return NotServed(f"model {name} version {entry.version} was refused: {entry.message}")

    def _names(self, task: spec.Task | None = None) -> str:
        entries = [entry for entry in self.entries() if task is None or (entry.served is not None and entry.served.spec.task == task)]
        return ", ".join(dict.fromkeys(entry.name for entry in entries))

    def _set(self, entry: Entry, on_change: Callable[[Entry], None]) -> None:
        with self._lock:
            self._entries[entry.name, entry.version] = entry
        self._serving = {}
        on_change(entry)

    def _load(self, name: str, version: int) -> Entry:
        try:
            served = self._admit(self._settings.repository / name / str(version))
        except (spec.SpecError, ModelRefused) as error:
            check = error.check if isinstance(error, ModelRefused) else "spec"
            self._metrics.model_load_failures.labels(check).inc()
            _log.error("model refused", model=name, version=version, check=check, reason=str(error))
            return Entry(name, version, Status.FAILED, str(error))
        except Exception as error:
            self._metrics.model_load_failures.labels("unexpected").inc()
            _log.exception("model refused", model=name, version=version, check="unexpected")
            return Entry(name, version, Status.FAILED, f"check 'unexpected' failed: {type(error).__name__}: {error}")
        model = served.spec
        self._metrics.model_info.labels(name, str(version), model.task, model.cell, served.variant, served.provider).set(1)
        tuning = served.tuning
        self._metrics.model_slots.labels(name, str(version)).set(served.engine.slots)
        self._metrics.model_chunk.labels(name, str(version)).set(tuning.chunk)
        self._metrics.model_chunk_rows.labels(name, str(version)).set(tuning.chunk_rows)
        _log.info(
            "model ready",
            model=name,
            version=version,
            task=model.task,
            variant=served.variant,
            golden_max_error=served.golden_max_error,
            slots=served.engine.slots,
            chunk=tuning.chunk,
            chunk_rows=tuning.chunk_rows,
            engines=len(served.engine),
            steps_per_second=round(tuning.steps_per_second),
        )
        served.engine.start()
        return Entry(name, version, Status.READY, served=served)

    def _admit(self, folder: Path) -> Served:
        settings = self._settings
        model, text = spec.read_spec(folder)
        variant: Variant = settings.variant if settings.variant in model.variants else "fp32"
        chosen = model.variants[variant]
        path, state = folder / chosen.file, [(pair.input, pair.output) for pair in model.state]
        runtime = Runtime(path, state, settings.provider, 1)
        check_signature(model, runtime)
        error = check_golden(model, runtime, chosen.tolerance, settings.chunk or _GOLDEN_CHUNK)
        tuning = self._tune(model, runtime)
        engines = self._num_engines(tuning)
        if (threads := settings.threads // engines) > 1:
            wider = Runtime(path, state, settings.provider, threads)
            runtime = wider if is_faster(wider, runtime, shape_of(model), tuning) else runtime
        engine = self._engines(model, runtime, tuning, engines)
        task = self._task(model, folder, engine)
        # Only the CPU's fp32 kernels were measured to give the same bits in every batch.
        is_invariant = chosen.batch_invariant and model.invariant_cell and variant == "fp32" and settings.provider == "cpu"
        return Served(model, text, variant, runtime.provider, is_invariant, error, tuning, engine, task)

    def _tune(self, model: spec.ModelSpec, runtime: Runtime) -> Tuning:
        settings = self._settings
        try:
            return tune(runtime, shape_of(model), model.generation is not None, Wish(settings.slots, settings.chunk, settings.chunk_rows))
        except ModelFailure as failure:
            raise ModelRefused("warm-up", "outputs for the widest ticks", str(failure)) from failure

    def _num_engines(self, tuning: Tuning) -> int:
        """More engines than one pay off on a CPU alone; on CUDA all work is one device's."""
        settings = self._settings
        measured = min(settings.threads, tuning.most_engines) if settings.provider == "cpu" else 1
        return min(settings.engines or measured, tuning.slots)

    def _engines(self, model: spec.ModelSpec, runtime: Runtime, tuning: Tuning, count: int) -> EngineGroup:
        settings = self._settings
        limits = tuning.limits(settings.max_waiting, settings.stream_interval_ms / 1000, settings.prompt_cache_bytes // count)
        # What is set is for the model as a whole; what was measured is for each engine.
        shares = [(settings.slots + index) // count if settings.slots else tuning.slots for index in range(count)]
        engines = [
            Engine(
                model.name,
                runtime,
                shape_of(model),
                replace(limits, slots=slots, chunk_rows=min(limits.chunk_rows, slots)),
                self._post,
                self._metrics.for_model(model.name),
            )
            for slots in shares
        ]
        return EngineGroup(engines, settings.max_waiting)

    def _task(self, model: spec.ModelSpec, folder: Path, engine: EngineGroup) -> Task:
        settings = self._settings
        limits = task_limits.Limits(
            items=settings.most_items,
            text_length=settings.max_text_length,
            observations=settings.max_observations,
            tokens=settings.max_tokens,
            stop_strings=settings.max_stop_strings,
            stop_length=settings.max_stop_length,
        )
        if model.generation is not None:
            metrics = self._metrics.for_model(model.name)
            return GenerationTask(model.name, model.generation, engine, metrics, limits, settings.stream_buffer)
        if model.classification is not None:
            tokenizer = _read_tokenizer(folder / model.classification.text.file, model.input.size)
            return ClassificationTask(model.classification, tokenizer, engine, limits)
        assert model.forecasting is not None, "the spec holds exactly one task's section"
        return ForecastingTask(model.forecasting, engine, limits)


def discover(folder: Path) -> dict[str, list[int]]:
    """Model names and their versions on disk, newest first. Hidden folders and those whose name is no version are left alone."""
    found: dict[str, list[int]] = {}
    if not folder.is_dir():
        return found
    for parent in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        versions = sorted((int(path.name) for path in parent.iterdir() if path.is_dir() and _is_version(path.name)), reverse=True)
        if versions:
            found[parent.name] = versions
    return found


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0") and int(name) <= spec.MOST_VERSION


def _read_tokenizer(path: Path, size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelRefused("tokenizer", f"a tokenizer in {path.name}", str(error)) from error
    if tokenizer.get_vocab_size() != size:
        raise ModelRefused("tokenizer", f"{size} tokens, as the network has", f"{tokenizer.get_vocab_size()} in {path.name}")
    return tokenizer
