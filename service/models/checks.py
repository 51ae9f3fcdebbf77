"""Admission checks that a version must pass before it serves, run on the runtime that would serve it.

This module puts together those that run the graph (`service.models.signature`, `service.models.golden`), and
checks how texts and values of golden examples become what the network gets. model.json and the hashes are
checked by `service.contract.spec`, the provider and the placement of nodes by `service.runtime`, the
tokenizer by `service.models.tokenizer_file`.
"""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.engine.cell import Shape
from service.errors import InvalidArgument, ModelFailure, ModelRefused
from service.models.checklist import Passed, Tell, tell_nobody
from service.models.golden import check_golden
from service.models.runs import ChunkRuns, Runs, WholeRuns
from service.models.samples import Samples, check_features
from service.models.signature import check_init_signature, check_signature
from service.models.sources import check_longest_source
from service.runtime import InitRuntime, Runtime, WholeRuntime
from service.tasks.feature_columns import FeatureColumns
from service.tasks.feature_transform import FeatureTransform
from service.tasks.text import Characters, tokenize
from service.tasks.unknown_text import TextCoverage
from service.tasks.windows import WindowFit


def shape_of(model: spec.ModelSpec) -> Shape:
    """Return the widths of a model's tensors, as its engine needs them."""
    features = None if model.input.kind == "tokens" else model.input.size
    states = model.network.states
    start = (one.start if isinstance(one.start, float) else np.array(one.start, np.float32) for one in states)
    return Shape(features, model.outputs, tuple(one.size for one in states), tuple(start))


def runs_of(model: spec.ModelSpec, runtime: Runtime | WholeRuntime, samples: Samples) -> Runs:
    """Return what runs sequences of a version on its graph."""
    if isinstance(runtime, WholeRuntime):
        return WholeRuns(model, runtime, samples)
    return ChunkRuns(model, runtime)


def check_graphs(
    model: spec.ModelSpec,
    runtime: Runtime | WholeRuntime,
    init: InitRuntime | None,
    tolerance: float,
    chunk: int,
    tell: Tell = tell_nobody,
) -> tuple[Samples, float]:
    """Check the signatures of a version's graphs and its golden examples.

    Args:
        model: spec of the version.
        runtime: the graph of its network.
        init: the graph of its first states; None: it has none.
        tolerance: largest allowed absolute difference from the golden outputs.
        chunk: chunk length of one of the ways to run the examples, in time steps.
        tell: told each check that is passed.

    Returns:
        Sequences like the golden examples, and the largest difference from their outputs.

    Raises:
        ModelRefused: the first check that failed.
    """
    check_signature(model, runtime)
    if init is not None:
        check_init_signature(model, init)
    tell(Passed("signature"))
    samples = Samples(model, init)
    if init is not None:
        check_longest_source(model, init)
    tell(Passed("init", is_needed=init is not None))
    error = check_golden(model, runs_of(model, runtime, samples), samples, tolerance, chunk)
    examples = len(model.golden)
    tell(Passed("golden", {"largest_difference": error, "tolerance": tolerance, "examples": examples}))
    return samples, error


def check_preprocessing(model: spec.ModelSpec, tokenizer: Tokenizer | None) -> None:
    """Check that texts and values of the golden examples give what the network gets, here as in training.

    Raises:
        ModelRefused: a text gives other tokens, values give other features, or either gives none.
    """
    for index, golden in enumerate(model.golden):
        try:
            if golden.text is not None:
                _check_text(model, tokenizer, index, golden)
            if golden.values is not None:
                found = _features_of(model, np.array(golden.values))
                check_features(found, golden.features or (), f"example {index}")
        except (InvalidArgument, ModelFailure) as error:
            what = "tokens of the text" if golden.text is not None else "features of the values"
            raise ModelRefused("preprocessing", f"{what} of example {index}", str(error)) from error


def _check_text(model: spec.ModelSpec, tokenizer: Tokenizer | None, index: int, golden: spec.Golden) -> None:
    assert golden.text is not None, "the example has a text"
    tokens = np.array(_tokens_of(model, tokenizer, golden.text), np.int64)
    found = WindowFit.of(model.network).fit(tokens, "text").inputs.tolist()
    if found != golden.tokens:
        raise ModelRefused(
            "preprocessing", f"the tokens of example {index} for its text", f"others, {len(found)} in all"
        )


def _features_of(model: spec.ModelSpec, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the features of a caller's values, (T, F), as the model's task computes them."""
    if model.forecasting is not None:
        transform = FeatureTransform(model.forecasting)
        with np.errstate(all="ignore"):  # what is not finite differs from the example
            return transform.features(transform.levels(values), [0])
    assert model.sequences is not None, "features are the input of these two tasks alone"
    return FeatureColumns(model.sequences.columns, model.input.size).features(
        values.astype(np.float32), "values"
    )


def _tokens_of(model: spec.ModelSpec, tokenizer: Tokenizer | None, text: str) -> list[int]:
    """Return the tokens of a caller's text, as the model's task computes them."""
    tokens: NDArray[np.signedinteger]
    if model.generation is not None:
        tokens = _prompt_of(model.name, model.generation, tokenizer, text)
    else:
        assert model.text is not None, "a model without this section has no texts beside its examples"
        normalizer = Normalizer(model.text.normalization)
        if isinstance(model.text, spec.Characters):
            tokens = Characters(model.name, model.text.vocabulary, normalizer).encode(text, "text")
        else:
            assert tokenizer is not None, "the tokenizer's file was read"
            (tokens,) = tokenize(tokenizer, [text], 0, normalizer)
    return list(map(int, tokens))


def _prompt_of(
    model: str, section: spec.Generation, tokenizer: Tokenizer | None, text: str
) -> NDArray[np.signedinteger]:
    """Return the tokens of a text that nothing stands before, the start token included where it is fed."""
    normalizer = Normalizer(section.text.normalization)
    tokens: NDArray[np.signedinteger]
    if isinstance(section.text, spec.Characters):
        tokens = Characters(model, section.text.vocabulary, normalizer).encode(text, "text")
    else:
        assert tokenizer is not None, "the file of a tokenizer was read"
        tokens = TextCoverage(model, tokenizer).encode(text, normalizer, "text", begins=True)
    if not section.prepend_start:
        return tokens
    return np.concatenate([np.array([section.start_token], tokens.dtype), tokens])
