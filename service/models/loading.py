"""Loads a version: from its folder to the engines and the task that take its requests."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.spec import Variant
from service.engine.driver import Driver, LoopDriver, ThreadDriver
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.errors import ModelFailure, ModelRefused
from service.models.checks import GOLDEN_CHUNK, check_golden, check_signature, read_tokenizer, shape_of
from service.models.hand_over import hand_over_s
from service.models.leases import Leases
from service.models.trial import Trial
from service.models.tuning import Tuning, Wish, is_faster, tune
from service.observability.metrics import EngineMetrics, Metrics
from service.runtime import Runtime
from service.settings import Settings
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import GenerationTask
from service.tasks.limits import Limits
from service.tasks.workers import Workers

Task = GenerationTask | ClassificationTask | ForecastingTask
# Is told the name and version whose engine has failed, in the driver's thread.
OnFailure = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Served:
    """A version that takes requests.

    Attributes:
        spec: model.json, typed.
        spec_text: model.json as it was read.
        variant: fp32 or int8.
        provider: onnxruntime's name of it.
        batch_invariant: answers are bit-identical in every batch, on this provider.
        golden_max_error: largest difference from PyTorch seen at load.
        tuning: sizes of its ticks, and what they were measured to bring.
        engine: its engines, as callers see them.
        drivers: what calls the turns of each engine.
        task: turns requests of its task into sequences and outputs into answers.
        counts: what its engines and its task count.
        leases: requests that it has taken and not yet answered, and series that it keeps open.
    """

    spec: spec.ModelSpec
    spec_text: str
    variant: Variant
    provider: str
    batch_invariant: bool
    golden_max_error: float
    tuning: Tuning
    engine: EngineGroup
    drivers: tuple[Driver, ...]
    task: Task
    counts: tuple[EngineMetrics, ...] = ()
    leases: Leases = field(default_factory=Leases)

    @property
    def info(self) -> tuple[str, str, str, str]:
        """Labels of its metrics: task, cell, variant, provider."""
        return self.spec.task, self.spec.cell, self.variant, self.provider

    def start(self) -> None:
        """Let the drivers call the engines' turns."""
        for driver in self.drivers:
            driver.start()

    def stop(self) -> None:
        """End the drivers after their current turns."""
        for driver in self.drivers:
            driver.stop()
        for engine in self.engine.engines:
            # Else the inbox keeps driver and engine in a cycle that only a full collection frees.
            engine.inbox.wake = _ignore


class Loader:
    """Loads versions, one at a time.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: counts what engines do.
        loop: event loop of the callers.
        on_failure: called when an engine has failed.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        on_failure: OnFailure,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loop = loop
        self._on_failure = on_failure
        self._trial = Trial(settings)
        self._workers = Workers(settings.threads)

    def stop(self) -> None:
        """End a trial that is under way, and let none begin."""
        self._trial.stop()

    def load(self, folder: Path, *, is_serving: bool) -> Served:
        """Check a version and make what takes its requests; its drivers are not started.

        Args:
            folder: .../<name>/<version>.
            is_serving: others serve meanwhile: it has to pass a trial in a process of its own first.

        Raises:
            SpecError, ModelRefused: the first check that failed.
        """
        tried = self._trial.run(folder) if is_serving else None
        model, text, files = spec.read_version(folder)
        if tried is not None and hashlib.sha256(text.encode()).hexdigest() != tried:
            raise ModelRefused(
                "trial", "a folder that stays as it is", f"another {spec.SPEC_FILE} after the trial"
            )
        variant: Variant = self._settings.variant if self._settings.variant in model.variants else "fp32"
        text_file = model.classification and model.classification.text.file
        tokenizer = read_tokenizer(text_file, files[text_file], model.input.size) if text_file else None
        graph = files[model.variants[variant].file]
        runtime = self._runtime(model, graph, 1)
        check_signature(model, runtime)
        chunk = self._settings.chunk or GOLDEN_CHUNK
        error = check_golden(model, runtime, model.variants[variant].tolerance, chunk)
        tuning = self._tune(model, runtime)
        runtime = self._widened(model, graph, runtime, tuning)
        group, task, counts = self._assemble(model, runtime, tuning, tokenizer)
        return Served(
            spec=model,
            spec_text=text,
            variant=variant,
            provider=runtime.provider,
            batch_invariant=self._is_batch_invariant(model, variant),
            golden_max_error=error,
            tuning=tuning,
            engine=group,
            drivers=self._drivers(model, tuning, group),
            task=task,
            counts=counts,
        )

    def _runtime(self, model: spec.ModelSpec, graph: bytes, threads: int) -> Runtime:
        state = [(pair.input, pair.output) for pair in model.state]
        return Runtime(graph, state, self._settings.provider, threads)

    def _widened(self, model: spec.ModelSpec, graph: bytes, runtime: Runtime, tuning: Tuning) -> Runtime:
        """Return a runtime with the threads that engines leave, where full ticks are faster with them."""
        threads = self._settings.threads // self._num_engines(tuning)
        if threads <= 1 or tuning.driver == "loop":
            return runtime
        wider = self._runtime(model, graph, threads)
        return wider if is_faster(wider, runtime, shape_of(model), tuning) else runtime

    def _assemble(
        self, model: spec.ModelSpec, runtime: Runtime, tuning: Tuning, tokenizer: Tokenizer | None
    ) -> tuple[EngineGroup, Task, tuple[EngineMetrics, ...]]:
        """Make engines and task; their counts are taken back where that fails."""
        counts = tuple(self._metrics.for_model(model.name) for _ in range(self._num_engines(tuning) + 1))
        try:
            group = self._engines(model, runtime, tuning, counts[1:])
            return group, self._task(model, tokenizer, group, counts[0]), counts
        except BaseException:
            self._metrics.retire(model.name, counts)
            raise

    def _is_batch_invariant(self, model: spec.ModelSpec, variant: Variant) -> bool:
        """Return whether answers are the same in every batch: measured for the CPU's fp32 kernels alone."""
        is_measured = variant == "fp32" and self._settings.provider == "cpu"
        return is_measured and model.has_batch_invariant_kernel and model.variants[variant].batch_invariant

    def _tune(self, model: spec.ModelSpec, runtime: Runtime) -> Tuning:
        settings = self._settings
        wish = Wish(settings.slots, settings.chunk, settings.chunk_rows)
        try:
            tuning = tune(runtime, shape_of(model), model.generation is not None, wish)
        except ModelFailure as failure:
            raise ModelRefused("warm-up", "outputs for the widest ticks", str(failure)) from failure
        return tuning.for_loop() if self._is_for_loop(tuning) else tuning

    def _is_for_loop(self, tuning: Tuning) -> bool:
        """Return whether the event loop should call the turns.

        It should where a thread brings nothing: one engine's own code keeps the interpreter busy, and a full
        tick costs less than a hand-over between threads.
        """
        settings = self._settings
        if settings.engine_driver != "auto":
            return settings.engine_driver == "loop"
        is_single = settings.engines in (None, 1) and settings.provider == "cpu" and tuning.max_engines == 1
        return is_single and tuning.tick_s <= hand_over_s()

    def _num_engines(self, tuning: Tuning) -> int:
        """Return how many engines pay off: on CUDA one, for all work is one device's."""
        settings = self._settings
        measured = min(settings.threads, tuning.max_engines) if settings.provider == "cpu" else 1
        return min(settings.engines or measured, tuning.slots)

    def _engines(
        self, model: spec.ModelSpec, runtime: Runtime, tuning: Tuning, counts: Sequence[EngineMetrics]
    ) -> EngineGroup:
        settings, count = self._settings, len(counts)
        limits = replace(
            tuning.limits(settings.stream_interval_ms / 1000, settings.prompt_cache_bytes // count),
            shares_prompts=settings.shared_prompt_cache,
        )
        # What is set is for the model as a whole; what was measured is for each engine.
        slots = [
            (settings.slots + number) // count if settings.slots else tuning.slots for number in range(count)
        ]
        engines = [
            Engine(
                model.name,
                runtime,
                shape_of(model),
                replace(limits, slots=share, chunk_rows=min(limits.chunk_rows, share)),
                counted,
                number=number,
            )
            for number, (share, counted) in enumerate(zip(slots, counts, strict=True))
        ]
        return EngineGroup(engines, settings.max_waiting)

    def _drivers(self, model: spec.ModelSpec, tuning: Tuning, group: EngineGroup) -> tuple[Driver, ...]:
        make = LoopDriver if tuning.driver == "loop" else ThreadDriver

        def fail(_: Engine) -> None:
            self._on_failure(model.name, model.version)

        return tuple(make(engine, self._loop, fail) for engine in group.engines)

    def _task(
        self, model: spec.ModelSpec, tokenizer: Tokenizer | None, group: EngineGroup, counted: EngineMetrics
    ) -> Task:
        settings = self._settings
        limits = Limits(
            items=settings.max_request_items,
            text_length=settings.max_text_length,
            observations=settings.max_observations,
            tokens=settings.max_tokens,
            stop_strings=settings.max_stop_strings,
            stop_length=settings.max_stop_length,
            backlog=settings.stream_buffer,
        )
        if model.generation is not None:
            return GenerationTask(model.name, model.generation, group, counted, limits)
        if model.classification is not None:
            assert tokenizer is not None, "a classification's file was read"
            return ClassificationTask(model.classification, tokenizer, group, limits, self._workers)
        assert model.forecasting is not None, "the spec holds exactly one task's section"
        return ForecastingTask(model.forecasting, group, limits)


def _ignore() -> None:
    """Wake nothing: the driver has stopped."""


def discover(folder: Path) -> dict[str, list[int]]:
    """Return model names and their versions on disk, newest first.

    Hidden folders, and those whose name is no version, are left alone.
    """
    found: dict[str, list[int]] = {}
    if not folder.is_dir():
        return found
    parents = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for parent in sorted(parents):
        numbers = (int(path.name) for path in parent.iterdir() if path.is_dir() and _is_version(path.name))
        if versions := sorted(numbers, reverse=True):
            found[parent.name] = versions
    return found


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0") and int(name) <= spec.MAX_VERSION
