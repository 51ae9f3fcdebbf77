"""Prepares a version: reads and checks its folder, loads its graph, measures and warms up its ticks.

A trial does exactly this in its child process before the server does, so that what hangs, crashes or takes
too much memory does so there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.spec import ModelSpec, TokenizerFile, Variant
from service.errors import ModelFailure, ModelRefused
from service.models.checklist import Passed, Tell, tell_nobody
from service.models.checks import check_graphs, check_preprocessing, runs_of
from service.models.choices import Choices
from service.models.golden import GOLDEN_CHUNK
from service.models.hand_over import hand_over_s
from service.models.interface import Accept, accept_any
from service.models.invariance import is_batch_invariant
from service.models.kinds import AnyRuntime, full_seconds, load_graph, tune_graph
from service.models.samples import Samples
from service.models.sources import check_source_preprocessing, source_tokenizer_of
from service.models.tokenizer_file import check_prompts, read_tokenizer
from service.models.tried import Tried
from service.models.tuning import Tuning, Wish, is_clearly_less
from service.runtime import InitRuntime, Session
from service.tasks.codecs import Codec, codec_of

# Of a graph above this size one is in memory at a time. Loading takes it three times as much as the graph for
# a moment: its bytes, what is parsed of them, and the weights.
_LARGE_BYTES = 128 << 20


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
        wished = self._choices.variant
        variant: Variant = wished if wished in model.variants else "fp32"
        tell(Passed("spec", {"name": model.name, "version": model.version, "variant": variant}))
        tokenizer, codec, source_tokenizer = _texts_of(model, files, tell)
        graph = files[model.variants[variant].file]
        runtime = self._runtime(model, graph, 1)
        init = self._init(model, files)
        for name in ("provider", "graph", "placement"):
            tell(Passed(name))
        del files
        chunk, tolerance = self._choices.chunk or GOLDEN_CHUNK, model.variants[variant].tolerance
        samples, error = check_graphs(model, runtime, init, tolerance, chunk, tell)
        runtime, tuning = self._tuned(model, graph, runtime)
        tell(Passed("warm-up"))
        invariant = self._is_invariant(tried, model, runtime, samples, tuning)
        tell(Passed("invariance", {"batch_invariant": invariant}))
        return Prepared(
            model, text, variant, tokenizer, codec, runtime, tuning, error, init, source_tokenizer, invariant
        )

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
