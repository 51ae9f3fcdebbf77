"""Loads a version: from its folder to the engines and the task that take its requests."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import structlog

from service.contract import spec
from service.contract.spec import Variant
from service.engine.cell import PLAIN, Decoding
from service.engine.core import EngineCore
from service.engine.driver import Driver, LoopDriver, ThreadDriver
from service.engine.group import EngineGroup
from service.memory import memory_limit
from service.models.bounded import BoundedPreparation
from service.models.choices import Choices
from service.models.interface import Accept
from service.models.kinds import AnyRuntime, engine_of
from service.models.leases import Leases
from service.models.preparing import Prepared
from service.models.run_memory import max_source_steps_of, max_steps_of
from service.models.trial import Trial
from service.models.tuning import Tuning
from service.observability.metrics import EngineMetrics, Metrics
from service.runtime import InitRuntime, WholeRuntime
from service.settings import Settings
from service.tasks.classification import ClassificationTask
from service.tasks.encoding import Encoder
from service.tasks.forecasting import ForecastingTask
from service.tasks.generation import GenerationTask
from service.tasks.initial import FirstState
from service.tasks.inline_time import InlineTime
from service.tasks.limits import Limits
from service.tasks.pending import Pending
from service.tasks.sequences import SequencesTask
from service.tasks.source import SourceReader
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit
from service.tasks.workers import Workers

_log = structlog.get_logger(__name__)

Task = GenerationTask | ClassificationTask | ForecastingTask | SequencesTask
# Is told the name and version whose engine has failed, in the driver's thread.
OnFailure = Callable[[str, int], None]


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
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
        sequences: does so for the service Sequences, which models of two tasks answer; None: not for it.
        runtime: its graph, which its engines share.
        init: graph of its first states; None: they are constant.
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
    runtime: AnyRuntime
    sequences: SequencesTask | None = None
    init: InitRuntime | None = None
    counts: tuple[EngineMetrics, ...] = ()
    leases: Leases = field(default_factory=Leases)

    @property
    def info(self) -> tuple[str, str, str, str]:
        """Labels of its metrics: task, cell, variant, provider."""
        return self.spec.task, self.spec.network.cell, self.variant, self.provider

    def start(self) -> None:
        """Let the drivers call the engines' turns."""
        for driver in self.drivers:
            driver.start()

    def stop(self) -> None:
        """End the drivers after their current turns."""
        if isinstance(self.runtime, WholeRuntime):
            self.runtime.terminate()  # a run of whole sequences may be long
        if self.init is not None:
            self.init.terminate()  # that of an encoder, too
        for driver in self.drivers:
            driver.stop()
        for engine in self.engine.engines:
            # Else the inbox keeps driver and engine in a cycle that only a full collection frees.
            engine.inbox.wake = _ignore


class Loader:
    """Loads versions, one at a time; `stop` may be called in any thread, the rest in one.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: counts what engines do.
        loop: event loop of the callers.
        on_failure: called when an engine has failed.
        trial: tries versions; None: one of its own.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        on_failure: OnFailure,
        trial: Trial | None = None,
    ) -> None:
        self._settings = settings
        self._choices = Choices.of(settings)
        self._metrics = metrics
        self._loop = loop
        self._on_failure = on_failure
        self._trial = trial or Trial(settings)
        self._preparing = BoundedPreparation(self._choices, settings.admission_seconds)
        self._text_work = TextWork(Workers(settings.threads), InlineTime())

    def stop(self) -> None:
        """End a trial or a preparation that is under way, and let none begin."""
        self._trial.stop()
        self._preparing.stop()

    def end_trial(self) -> None:
        """End the process of the trials; the next trial starts another one."""
        self._trial.close()

    def difference(self, newer: Path, older: Path) -> str:
        """Compare the interfaces of two version folders in the process of the trials.

        Returns:
            A sentence on what differs, empty where nothing does.

        Raises:
            SpecError, ModelRefused: one of them cannot be read.
        """
        return self._trial.difference(newer, older)

    def load(self, folder: Path, accept: Accept) -> Served:
        """Try a version, prepare it and make what takes its requests; its drivers are not started.

        Args:
            folder: .../<name>/<version>.
            accept: told the version's model.json between the trial and the preparation.

        Raises:
            SpecError, ModelRefused: the first check that failed, in the trial or after it.
        """
        tried = self._trial.run(folder)
        prepared = self._preparing.run(folder, tried, accept)
        self._warn_of_claim(prepared)
        group, task, sequences, counts = self._assemble(prepared)
        return Served(
            spec=prepared.spec,
            spec_text=prepared.text,
            variant=prepared.variant,
            provider=prepared.runtime.provider,
            batch_invariant=prepared.batch_invariant,
            golden_max_error=prepared.golden_max_error,
            tuning=prepared.tuning,
            engine=group,
            drivers=self._drivers(prepared.spec, prepared.tuning, group),
            task=task,
            sequences=sequences,
            runtime=prepared.runtime,
            init=prepared.init,
            counts=counts,
        )

    def _warn_of_claim(self, prepared: Prepared) -> None:
        """Log where a version claims what was measured to be false; it is served with what was measured."""
        is_claimed = prepared.spec.variants[prepared.variant].batch_invariant
        if is_claimed and not prepared.batch_invariant and self._choices.provider == "cpu":
            _log.warning(
                "batch_invariant is claimed, and was measured to be false",
                model=prepared.spec.name,
                version=prepared.spec.version,
                variant=prepared.variant,
            )

    def _assemble(
        self, prepared: Prepared
    ) -> tuple[EngineGroup, Task, SequencesTask | None, tuple[EngineMetrics, ...]]:
        """Make engines and tasks; their counts are taken back where that fails."""
        model, num_engines = prepared.spec, self._choices.num_engines(prepared.tuning)
        counts = tuple(self._metrics.for_model(model.name) for _ in range(num_engines + 1))
        try:
            decoding = self._decoding(prepared)
            group = self._engines(model, prepared.runtime, prepared.tuning, counts[1:], decoding)
            sequences = self._sequences(prepared, group)
            return group, self._task(prepared, sequences, group, counts[0]), sequences, counts
        except BaseException:
            self._metrics.retire(model.name, counts)
            raise

    def _engines(
        self,
        model: spec.ModelSpec,
        runtime: AnyRuntime,
        tuning: Tuning,
        counts: Sequence[EngineMetrics],
        decoding: Decoding = PLAIN,
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
            engine_of(
                model,
                runtime,
                replace(limits, slots=share, chunk_rows=min(limits.chunk_rows, share)),
                counted,
                number,
                decoding,
            )
            for number, (share, counted) in enumerate(zip(slots, counts, strict=True))
        ]
        return EngineGroup(engines, settings.max_waiting)

    def _decoding(self, prepared: Prepared) -> Decoding:
        """Return the options of step ticks of a version."""
        section = prepared.spec.generation
        if section is None:
            return PLAIN
        sizes = prepared.tuning.step_sizes(self._settings.stream_interval_ms / 1000)
        return Decoding(section.end_tokens, prepared.generator, sizes)

    def _drivers(self, model: spec.ModelSpec, tuning: Tuning, group: EngineGroup) -> tuple[Driver, ...]:
        make = LoopDriver if tuning.driver == "loop" else ThreadDriver

        def fail(_: EngineCore) -> None:
            self._on_failure(model.name, model.version)

        return tuple(make(engine, self._loop, fail) for engine in group.engines)

    def _task(
        self, prepared: Prepared, sequences: SequencesTask | None, group: EngineGroup, counted: EngineMetrics
    ) -> Task:
        model, tokenizer = prepared.spec, prepared.tokenizer
        limits = self._limits(prepared)
        if model.generation is not None:
            assert prepared.codec is not None, "a text generation has one"
            encoder = Encoder(prepared.codec, self._text_work)
            first = self._first(prepared, limits)
            return GenerationTask(model.generation, prepared.codec, group, counted, limits, encoder, first)
        if model.classification is not None:
            assert tokenizer is not None, "a classification's file was read"
            return ClassificationTask(
                model.classification,
                tokenizer,
                group,
                limits,
                self._text_work,
                WindowFit.of(model.network),
                model.name,
            )
        if sequences is not None:
            return sequences
        assert model.forecasting is not None, "the spec holds exactly one task's section"
        return ForecastingTask(model.forecasting, group, limits)

    def _first(self, prepared: Prepared, limits: Limits) -> FirstState:
        """Make what computes the first state of a text; an encoder runs one source in each of its threads."""
        model, section, settings = prepared.spec, prepared.spec.source, self._settings
        if section is None:
            return FirstState(model.network, prepared.init, self._text_work.workers)
        max_steps = max_source_steps_of(model, memory_limit() // settings.threads)
        tokenizer = prepared.source_tokenizer
        source = SourceReader(model.name, section, tokenizer, max_steps, limits, self._text_work)
        pending = Pending(model.name, settings.max_waiting)
        return FirstState(model.network, prepared.init, self._encoder_workers, source, pending)

    @cached_property
    def _encoder_workers(self) -> Workers:
        """Threads that run encoders: texts of other models do not wait for runs that may be long."""
        return Workers(self._settings.threads)

    def _sequences(self, prepared: Prepared, group: EngineGroup) -> SequencesTask | None:
        """Make what answers the service Sequences; None for a model of another task."""
        model = prepared.spec
        if model.sequences is None and model.classification is None:
            return None
        limits = self._limits(prepared)
        return SequencesTask(model, prepared.tokenizer, prepared.init, group, limits, self._text_work)

    def _limits(self, prepared: Prepared) -> Limits:
        """Return the sizes of requests: those that are set, or shorter sequences where memory is short."""
        settings = self._settings
        num_engines = self._choices.num_engines(prepared.tuning)
        max_steps = max_steps_of(prepared.spec, memory_limit() // num_engines)
        return Limits(
            items=settings.max_request_items,
            text_length=min(settings.max_text_length, max_steps),
            observations=min(settings.max_observations, max_steps),
            tokens=settings.max_tokens,
            stop_strings=settings.max_stop_strings,
            stop_length=settings.max_stop_length,
            backlog=settings.stream_buffer,
            answer_bytes=settings.max_answer_bytes,
        )


def _ignore() -> None:
    """Do nothing: the driver that a message would wake has stopped."""
