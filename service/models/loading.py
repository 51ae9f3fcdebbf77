"""From a version's folder to what takes its requests: every check, the warm-up, the engines and the task."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.spec import Variant
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.sequence import Post
from service.errors import ModelFailure, ModelRefused
from service.models.checks import GOLDEN_CHUNK, check_golden, check_signature, read_tokenizer, shape_of
from service.models.leases import Uses
from service.models.trial import Trial
from service.models.tuning import Tuning, Wish, is_faster, tune
from service.observability.metrics import EngineMetrics, Metrics
from service.runtime import Runtime
from service.settings import Settings
from service.tasks import limits as task_limits
from service.tasks.classification import ClassificationTask
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import GenerationTask

Task = GenerationTask | ClassificationTask | ForecastingTask


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
        counts: what its engines and its task count.
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
    counts: tuple[EngineMetrics, ...] = ()
    uses: Uses = field(default_factory=Uses)

    @property
    def info(self) -> tuple[str, str, str, str]:
        """What metrics tell of it: task, cell, variant, provider."""
        return self.spec.task, self.spec.cell, self.variant, self.provider


class Loader:
    """Admits versions, one at a time.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: where engines count.
        post: takes the engines' results.
    """

    def __init__(self, settings: Settings, metrics: Metrics, post: Post) -> None:
        self._settings = settings
        self._metrics = metrics
        self._post = post
        self._trial = Trial(settings)

    def stop(self) -> None:
        """End a trial that is under way, and let none begin."""
        self._trial.stop()

    def admit(self, folder: Path, *, is_serving: bool) -> Served:
        """What takes a version's requests; its engines are not started.

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
        settings = self._settings
        variant: Variant = settings.variant if settings.variant in model.variants else "fp32"
        chosen = model.variants[variant]
        text_file = model.classification and model.classification.text.file
        tokenizer = read_tokenizer(text_file, files[text_file], model.input.size) if text_file else None
        graph, state = files[chosen.file], [(pair.input, pair.output) for pair in model.state]
        runtime = Runtime(graph, state, settings.provider, 1)
        check_signature(model, runtime)
        error = check_golden(model, runtime, chosen.tolerance, settings.chunk or GOLDEN_CHUNK)
        tuning = self._tune(model, runtime)
        engines = self._num_engines(tuning)
        if (threads := settings.threads // engines) > 1:
            wider = Runtime(graph, state, settings.provider, threads)
            runtime = wider if is_faster(wider, runtime, shape_of(model), tuning) else runtime
        counts = [self._metrics.for_model(model.name) for _ in range(engines + 1)]
        try:
            engine = self._engines(model, runtime, tuning, counts[1:])
            task = self._task(model, tokenizer, engine, counts[0])
        except BaseException:
            self._metrics.retire(model.name, counts)
            raise
        # Only the CPU's fp32 kernels were measured to give the same bits in every batch.
        is_invariant = (
            chosen.batch_invariant
            and model.invariant_cell
            and variant == "fp32"
            and settings.provider == "cpu"
        )
        return Served(
            model, text, variant, runtime.provider, is_invariant, error, tuning, engine, task, tuple(counts)
        )

    def _tune(self, model: spec.ModelSpec, runtime: Runtime) -> Tuning:
        settings = self._settings
        try:
            return tune(
                runtime,
                shape_of(model),
                model.generation is not None,
                Wish(settings.slots, settings.chunk, settings.chunk_rows),
            )
        except ModelFailure as failure:
            raise ModelRefused("warm-up", "outputs for the widest ticks", str(failure)) from failure

    def _num_engines(self, tuning: Tuning) -> int:
        """More engines than one pay off on a CPU alone; on CUDA all work is one device's."""
        settings = self._settings
        measured = min(settings.threads, tuning.most_engines) if settings.provider == "cpu" else 1
        return min(settings.engines or measured, tuning.slots)

    def _engines(
        self, model: spec.ModelSpec, runtime: Runtime, tuning: Tuning, counts: list[EngineMetrics]
    ) -> EngineGroup:
        settings, count = self._settings, len(counts)
        limits = tuning.limits(
            settings.max_waiting, settings.stream_interval_ms / 1000, settings.prompt_cache_bytes // count
        )
        # What is set is for the model as a whole; what was measured is for each engine.
        shares = [
            (settings.slots + index) // count if settings.slots else tuning.slots for index in range(count)
        ]
        engines = [
            Engine(
                model.name,
                runtime,
                shape_of(model),
                replace(limits, slots=slots, chunk_rows=min(limits.chunk_rows, slots)),
                self._post,
                counted,
            )
            for slots, counted in zip(shares, counts, strict=True)
        ]
        return EngineGroup(engines, settings.max_waiting)

    def _task(
        self, model: spec.ModelSpec, tokenizer: Tokenizer | None, engine: EngineGroup, counted: EngineMetrics
    ) -> Task:
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
            return GenerationTask(
                model.name, model.generation, engine, counted, limits, settings.stream_buffer
            )
        if model.classification is not None:
            assert tokenizer is not None, "a classification's file was read"
            return ClassificationTask(model.classification, tokenizer, engine, limits)
        assert model.forecasting is not None, "the spec holds exactly one task's section"
        return ForecastingTask(model.forecasting, engine, limits)


def discover(folder: Path) -> dict[str, list[int]]:
    """Model names and their versions on disk, newest first. Hidden folders and those whose name is no version
    are left alone.
    """
    found: dict[str, list[int]] = {}
    if not folder.is_dir():
        return found
    for parent in sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        versions = sorted(
            (int(path.name) for path in parent.iterdir() if path.is_dir() and _is_version(path.name)),
            reverse=True,
        )
        if versions:
            found[parent.name] = versions
    return found


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdecimal() and not name.startswith("0") and int(name) <= spec.MOST_VERSION
