"""Checks what belongs to the source of an encoder: its tokenizer, golden examples, and the longest one."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.normalizing import Normalizer
from service.contract.spec import SOURCE, Characters, GoldenInput, ModelSpec, SourceSpec, TokenizerFile
from service.errors import InvalidArgument, ModelFailure, ModelRefused
from service.models.samples import Init, check_features, input_of
from service.models.tokenizer_file import check_added, read_tokenizer
from service.tasks import text as characters
from service.tasks.feature_columns import FeatureColumns
from service.tasks.unknown_text import TextCoverage


def source_tokenizer_of(model: ModelSpec, files: Mapping[str, bytes]) -> Tokenizer | None:
    """Read the tokenizer of a model's source, None where it has none.

    Raises:
        ModelRefused: the file has a part that is not allowed.
    """
    source = model.source
    if source is None or not isinstance(source.text, TokenizerFile):
        return None
    name = source.text.file
    tokenizer = read_tokenizer(name, files[name], source.input.size, is_processed=True)
    check_added(tokenizer)
    return tokenizer


def check_source_preprocessing(model: ModelSpec, tokenizer: Tokenizer | None) -> None:
    """Check that texts and values of golden sources give what the encoder gets, here as in training.

    Args:
        model: spec of the version.
        tokenizer: that of the source; None where it has none.

    Raises:
        ModelRefused: a text gives other tokens, values give other features, or either gives none.
    """
    source = model.source
    if source is None:
        return
    for index, example in enumerate(model.golden):
        golden = example.source
        assert golden is not None, "the contract was checked"
        try:
            if golden.text is not None:
                _check_text(model.name, source, tokenizer, index, golden)
            if golden.values is not None:
                columns = FeatureColumns(source.columns, source.input.size)
                rows = columns.features(np.array(golden.values, np.float32), "values")
                check_features(rows, golden.features or (), f"the source of example {index}")
        except (InvalidArgument, ModelFailure) as error:
            what = "tokens of the text" if golden.text is not None else "features of the values"
            found = str(error)
            raise ModelRefused("preprocessing", f"{what} of the source of example {index}", found) from error


def check_longest_source(model: ModelSpec, init: Init) -> None:
    """Check that the encoder runs a source of `max_steps`: repeated steps of the first golden source.

    Raises:
        ModelRefused: it fails, or gives something else than finite states.
    """
    source = model.source
    if source is None:
        return
    first = model.golden[0]
    assert first.source is not None, "the contract was checked"
    steps = input_of(first.source)
    inputs = {name: np.array([row], np.float32) for name, row in first.initial.items()}
    inputs[SOURCE] = np.resize(steps, (source.max_steps, *steps.shape[1:]))[None]
    expected = f"finite first states for a source of {source.max_steps} time steps, max_steps"
    try:
        found = init.run(inputs)
    except ModelFailure as failure:
        raise ModelRefused("init", expected, str(failure)) from failure
    if not all(np.isfinite(rows).all() for rows in found.values()):
        raise ModelRefused("init", expected, "others")


def _check_text(
    model: str, source: SourceSpec, tokenizer: Tokenizer | None, index: int, golden: GoldenInput
) -> None:
    assert golden.text is not None, "the source has a text"
    assert source.text is not None, "the contract was checked"
    normalizer = Normalizer(source.text.normalization)
    found: NDArray[np.signedinteger]
    if isinstance(source.text, Characters):
        found = characters.Characters(model, source.text.vocabulary, normalizer).encode(golden.text, "text")
    else:
        assert tokenizer is not None, "the tokenizer's file was read"
        found = TextCoverage(model, tokenizer).encode(golden.text, normalizer, "text", begins=True)
    if found.tolist() != golden.tokens:
        raise ModelRefused(
            "preprocessing",
            f"the tokens of the source of example {index} for its text",
            f"others, {len(found)} in all",
        )
