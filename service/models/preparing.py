"""Prepares a version: reads and checks its folder, loads its graph, measures and warms up its ticks.

A trial does exactly this in its child process before the server does, so that what hangs, crashes or takes
too much memory does so there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.spec import ModelSpec, TokenizerFile, Variant, VariantFile
from service.errors import ModelFailure, ModelRefused
from service.models.checklist import Passed, Tell, tell_nobody
from service.models.checks import check_graphs, check_preprocessing, runs_of, shape_of
from service.models.choices import Choices
from service.models.generation_check import check_generation
from service.models.golden import GOLDEN_CHUNK
from service.models.hand_over import hand_over_s
from service.models.interface import Accept, accept_any
from service.models.invariance import is_batch_invariant
from service.models.kinds import AnyRuntime, full_seconds, load_graph, tune_graph
from service.models.samples import Samples
from service.models.signature import check_generation_signature
from service.models.sources import check_source_preprocessing, source_tokenizer_of
from service.models.step_costs import StepCost
from service.models.step_tuning import measure_steps
from service.models.tokenizer_file import check_prompts, read_tokenizer
from service.models.tried import Tried
from service.models.tuning import Tuning, Wish, is_clearly_less
from service.runtime import GenerationRuntime, InitRuntime, Runtime, Session
from service.tasks.codecs import Codec, codec_of

# Of a graph above this size one is in memory at a time. Loading takes it three times as much as the graph for
# a moment: its bytes, what is parsed of them, and the weights.
_LARGE_BYTES = 128 << 20
# A generation graph holds a packed copy of the weights. Those of larger graphs are most of a step's time, of
# which a generation graph saves little.
_MAX_GENERATION_BYTES = 16 << 20


class _Stepped(NamedTuple):
    """The bytes of the generation graph, None where there is none, and of the chunk cell with its weights."""

    graph: bytes | None
    weights: VariantFile
    chunk_cell: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A version that is ready for engines.

    Attributes:
        spec: model.json, typed.
        text: model.json as it was read.
        variant: fp32 or int8.
        tokenizer: of a model with the file of one, else None.
        codec: text to tokens and back, of a text generation, else None.
        runtime: the graph, warmed up.
        tuning: sizes of its ticks, and what they were measured to bring.
        golden_max_error: largest difference from the golden outputs.
        init: the graph of the first states; None: they are constant.
        source_tokenizer: of a model whose source has the file of one, else None.
        batch_invariant: outputs were measured to have the same bits alone and in every batch.
        generator: the graph that runs a few steps with the sampler in it; None: there is none that is faster.
    """

    spec: ModelSpec
    text: str
    variant: Variant
    tokenizer: Tokenizer | None
    codec: Codec | None
    runtime: AnyRuntime
    tuning: Tuning
    golden_max_error: float
    init: InitRuntime | None
    source_tokenizer: Tokenizer | None
    batch_invariant: bool
    generator: GenerationRuntime | None = None


class Preparation:
    """One preparation, which another thread can cancel.

    Args:
        choices: provider, variant, threads and sizes.
    """

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._runtimes: list[Session] = []
        self._is_cancelled = False

    def run(
        self,
        folder: Path,
        tried: Tried | None = None,
        accept: Accept = accept_any,
        tell: Tell = tell_nobody,
    ) -> Prepared:
        """Prepare a version.

        Args:
            folder: .../<name>/<version>.
            tried: result of the version's trial, whose measurements are taken over; None: this is the trial.
            accept: told the version's model.json before its graph is loaded.
            tell: told each check that the version has passed, with what was measured.

        Raises:
            SpecError: model.json or a hash is wrong.
            ModelRefused: the first check that failed.
        """
        model, text, files = spec.read_version(folder, None if tried is None else tried.sha256)
        accept(model)
        variant: Variant = self._choices.variant if self._choices.variant in model.variants else "fp32"
        tell(Passed("spec", {"name": model.name, "version": model.version, "variant": variant}))
        tokenizer, codec, source_tokenizer = _texts_of(model, files, tell)
        weights = model.variants[variant]
        graph = files[weights.file]
        steps = _Stepped(files.get(weights.generation or ""), weights, graph)
        runtime, init = self._runtime(model, graph, 1), self._init(model, files)
        for name in ("provider", "graph", "placement"):
            tell(Passed(name))
        del files
        tolerance, chunk = weights.tolerance, self._choices.chunk or GOLDEN_CHUNK
        samples, error = check_graphs(model, runtime, init, tolerance, chunk, tell)
        runtime, tuning = self._tuned(model, graph, runtime)
        tell(Passed("warm-up"))
        generator, tuning = self._stepped(model, runtime, steps, samples, tuning, tell)
        invariant = self._is_invariant(tried, model, runtime, samples, tuning)
        tell(Passed("invariance", {"batch_invariant": invariant}))
        prepared = (model, text, variant, tokenizer, codec, runtime, tuning, error, init, source_tokenizer)
        return Prepared(*prepared, invariant, generator)

    def _stepped(
        self,
        model: ModelSpec,
        runtime: AnyRuntime,
        files: _Stepped,
        samples: Samples,
        tuning: Tuning,
        tell: Tell,
    ) -> tuple[GenerationRuntime | None, Tuning]:
        """Load, check and measure the generation graph; return it where it is used, and the sizes of ticks.

        It is used where it has the same bits as single steps, and is faster for some number of rows.
        """
        is_small = len(files.chunk_cell) <= _MAX_GENERATION_BYTES
        if files.graph is None or self._choices.provider != "cpu" or not is_small:
            tell(Passed("generation", is_needed=False))
            return None, tuning
        assert isinstance(runtime, Runtime), "only chunk cells generate"
        weights = files.weights
        given = {weights.file: files.chunk_cell}
        try:
            generator = GenerationRuntime(files.graph, self._choices.provider, runtime.threads, given)
        except ModelRefused as refused:
            expected = f"a generation graph in {weights.generation}: {refused.expected}"
            raise ModelRefused("generation", expected, refused.found) from refused
        self._note(generator)
        check_generation_signature(model, generator)
        has_same_bits = check_generation(model, runtime, generator, samples, weights.tolerance)
        costs: tuple[StepCost, ...] = ()
        if has_same_bits:
            try:
                costs = measure_steps(runtime, generator, shape_of(model), tuning.slots)
            except ModelFailure as failure:
                raise ModelRefused("generation", "outputs of the widest ticks", str(failure)) from failure
        rows = max((one.rows for one in costs if one.seconds), default=0)
        tell(Passed("generation", {"same_bits": has_same_bits, "faster_rows": rows}))
        return (generator if rows else None), replace(tuning, step_costs=costs if rows else ())

    def _tuned(self, model: ModelSpec, graph: bytes, runtime: AnyRuntime) -> tuple[AnyRuntime, Tuning]:
        """Return a runtime with as many threads as serve it best, and the sizes of its ticks."""
        try:
            tuning = self._tune(model, runtime)
            return self._widened(model, graph, runtime, tuning), tuning
        except ModelFailure as failure:
            raise ModelRefused("warm-up", "outputs for the widest ticks", str(failure)) from failure

    def _is_invariant(
        self,
        tried: Tried | None,
        model: ModelSpec,
        runtime: AnyRuntime,
        samples: Samples,
        tuning: Tuning,
    ) -> bool:
        """Return whether outputs have the same bits in every batch, as the trial measured or this does."""
        if self._choices.provider != "cpu":
            return False
        if tried is not None:
            return tried.is_batch_invariant
        runs = runs_of(model, runtime, samples)
        return is_batch_invariant(runtime, runs, samples, tuning.steps_per_second)

    def cancel(self) -> None:
        """End the runs of the graph, those under way before their next node, so that `run` raises."""
        self._is_cancelled = True
        for runtime in self._runtimes:
            runtime.terminate()

    def _runtime(self, model: ModelSpec, graph: bytes, threads: int) -> AnyRuntime:
        runtime = load_graph(model, graph, self._choices.provider, threads)
        self._note(runtime)
        return runtime

    def _init(self, model: ModelSpec, files: Mapping[str, bytes]) -> InitRuntime | None:
        """Load the graph of the first states, if there is one; it runs one row, for which a thread does."""
        if model.network.init is None:
            return None
        runtime = InitRuntime(files[model.network.init.file], self._choices.provider, 1)
        self._note(runtime)
        return runtime

    def _note(self, session: Session) -> None:
        """Let `cancel` end the runs of a session."""
        self._runtimes.append(session)
        if self._is_cancelled:
            session.terminate()

    def _tune(self, model: ModelSpec, runtime: AnyRuntime) -> Tuning:
        wish = Wish(self._choices.slots, self._choices.chunk, self._choices.chunk_rows)
        tuning = tune_graph(model, runtime, wish)
        return tuning.for_loop() if self._is_for_loop(tuning) else tuning

    def _is_for_loop(self, tuning: Tuning) -> bool:
        """Return whether the event loop should call the turns.

        It should where a thread brings nothing: one engine's own code keeps the interpreter busy, and a full
        tick costs less than a hand-over between threads.
        """
        choices = self._choices
        if choices.engine_driver != "auto":
            return choices.engine_driver == "loop"
        is_single = choices.engines in (None, 1) and choices.provider == "cpu" and tuning.max_engines == 1
        return is_single and tuning.tick_s <= hand_over_s()

    def _widened(self, model: ModelSpec, graph: bytes, runtime: AnyRuntime, tuning: Tuning) -> AnyRuntime:
        """Return a runtime with the threads that engines leave, where full ticks are faster with them.

        Of a large graph there is one in memory at a time: the other one is loaded again where it is faster.
        """
        threads = self._choices.threads // self._choices.num_engines(tuning)
        if threads <= 1 or tuning.driver == "loop":
            return runtime
        seconds, is_large = full_seconds(model, runtime, tuning), len(graph) > _LARGE_BYTES
        if is_large:
            runtime.release()
        wider = self._runtime(model, graph, threads)
        if is_clearly_less(full_seconds(model, wider, tuning), seconds):
            return wider
        if not is_large:
            return runtime
        wider.release()
        return self._runtime(model, graph, 1)


class _Texts(NamedTuple):
    """The tokenizer, the codec of a text generation, and the tokenizer of a source; None: there is none."""

    tokenizer: Tokenizer | None
    codec: Codec | None
    source_tokenizer: Tokenizer | None


def _texts_of(model: ModelSpec, files: Mapping[str, bytes], tell: Tell) -> _Texts:
    """Read the tokenizers, make the codec of a text generation, and check what they give.

    Raises:
        ModelRefused: a file has a part that is not allowed, or an example's tokens or features are others.
    """
    tokenizer, section = _tokenizer_of(model, files), model.generation
    source_tokenizer = source_tokenizer_of(model, files)
    codec = None if section is None else codec_of(model.name, section, tokenizer)
    tell(Passed("tokenizer", is_needed=tokenizer is not None or source_tokenizer is not None))
    check_preprocessing(model, tokenizer)
    check_source_preprocessing(model, source_tokenizer)
    inputs = [*model.golden, *(one.source for one in model.golden if one.source is not None)]
    examples = sum(one.text is not None or one.values is not None for one in inputs)
    tell(Passed("preprocessing", {"examples": examples} if examples else {}, is_needed=examples > 0))
    return _Texts(tokenizer, codec, source_tokenizer)


def _tokenizer_of(model: ModelSpec, files: Mapping[str, bytes]) -> Tokenizer | None:
    """Read the tokenizer of a model that has one.

    Raises:
        ModelRefused: the file has a part that is not allowed.
    """
    if not isinstance(model.text, TokenizerFile):
        return None
    name, generates = model.text.file, model.generation is not None
    tokenizer = read_tokenizer(name, files[name], model.input.size, is_processed=generates)
    if model.generation is not None:
        check_prompts(tokenizer, model.generation)
    return tokenizer
