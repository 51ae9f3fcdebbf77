"""Turns what callers send into what a converted network gets, as the service will."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.cases import Case
from training.convert.foreign import Array
from training.convert.meaning.meaning import Meaning
from training.convert.meaning.text import Text


class Unfit(ValueError):
    """A sequence that cannot become what the network gets; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence as a caller sends it, and as the network gets it.

    Attributes:
        case: what the network gets.
        text: the text of it; None: it is none.
        values: rows that the columns turn into its features, float32 (T, F); None: they are the features.
        source_text: the text of an encoder's source.
        rows: time steps of it that are no padding.
    """

    case: Case
    rows: slice
    text: str | None = None
    values: NDArray[np.float32] | None = None
    source_text: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """One sequence as a user gives it.

    Attributes:
        sequence: a text, token ids (T,), or rows (T, F).
        initial: inputs of the init graph by name, float32 (size,).
        source: what an encoder reads, as `sequence`; None: nothing.
    """

    sequence: str | Array
    initial: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    source: str | Array | None = None


def sample_of(given: Given, meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput) -> Sample:
    """Return a sequence as the network gets it.

    Args:
        given: the sequence.
        meaning: how texts and values are read, and the window.
        taken: kind and size of the network's input.

    Raises:
        Unfit: it is of another kind, empty, too long for the window, or out of range.
    """
    text = given.sequence if isinstance(given.sequence, str) else None
    values: NDArray[np.float32] | None = None
    if isinstance(given.sequence, str):
        inputs: NDArray[Any] = _prompt(_tokens(given.sequence, meaning.text), meaning)
    elif taken.kind == "tokens":
        inputs = np.asarray(given.sequence)
    else:
        values = np.asarray(given.sequence, np.float32)
        inputs = features_of(values, meaning.columns) if meaning.columns else values
    _check(inputs, taken)
    fitted, rows = fit(inputs, meaning.window)
    source_text = given.source if isinstance(given.source, str) else None
    source = _tokens(source_text, meaning.source_text) if source_text is not None else given.source
    is_scaled = values is not None and meaning.columns and len(values) == len(fitted)
    case = Case(fitted, given.initial, None if source is None else np.asarray(source))
    return Sample(case, rows, text, values if is_scaled else None, source_text)


def _prompt(tokens: NDArray[np.int64], meaning: Meaning) -> NDArray[np.int64]:
    """Return the tokens of a language model's prompt, the start token included where it is fed."""
    section = meaning.section
    if isinstance(section, spec.Generation) and section.prepend_start:
        return np.concatenate([[np.int64(section.start_token)], tokens])
    return tokens


def _tokens(text: str, reader: Text | None) -> NDArray[np.int64]:
    if reader is None:
        raise Unfit("expected token ids or rows, found a text: --tokenizer or --characters reads texts")
    try:
        return np.array(reader.encode(text), np.int64)
    except ValueError as error:
        raise Unfit(str(error)) from error


def _check(inputs: NDArray[Any], taken: spec.TokenInput | spec.FeatureInput) -> None:
    """Raise Unfit unless the network takes the inputs."""
    if taken.kind == "tokens":
        if inputs.ndim != 1 or inputs.dtype.kind not in "iu":
            raise Unfit(f"expected token ids of one axis, found {inputs.dtype} of shape {inputs.shape}")
        if len(inputs) and not (inputs.min() >= 0 and inputs.max() < taken.size):
            raise Unfit(f"expected token ids below {taken.size}, found {inputs.min()} to {inputs.max()}")
    elif inputs.ndim != 2 or inputs.shape[1] != taken.size:
        raise Unfit(f"expected rows of {taken.size} values, found an array of shape {inputs.shape}")
    elif not np.isfinite(inputs).all():
        raise Unfit("expected finite values, found others")
    if not len(inputs):
        raise Unfit("expected at least one time step, found none")


def fit(inputs: NDArray[Any], window: spec.Window | None) -> tuple[NDArray[Any], slice]:
    """Return inputs brought to a window's length, and the time steps of that which are no padding.

    Raises:
        Unfit: they are longer, and longer ones are refused.
    """
    count = len(inputs)
    if window is None or count == window.to:
        return inputs, slice(0, count)
    if count > window.to:
        if window.longer == "refuse":
            raise Unfit(f"expected at most {window.to} time steps, the window, found {count}")
        kept = inputs[: window.to] if window.longer == "keep_first" else inputs[-window.to :]
        return kept, slice(0, window.to)
    padded = np.full((window.to, *inputs.shape[1:]), window.value, inputs.dtype)
    start = window.to - count if window.side == "left" else 0
    padded[start : start + count] = inputs
    return padded, slice(start, start + count)


def features_of(values: NDArray[np.float32], columns: Sequence[spec.FeatureColumn]) -> NDArray[np.float32]:
    """Return the features of rows of values, (f(value) - mean) / scale in 64 bits, float32 (T, F).

    Raises:
        Unfit: rows have another width, or the logarithm of a value that is not positive is asked for.
    """
    if values.ndim != 2 or values.shape[1] != len(columns):
        raise Unfit(f"expected rows of {len(columns)} values, found an array of shape {values.shape}")
    wide = values.astype(np.float64)
    is_log = np.array([one.transform == "log" for one in columns])
    if is_log.any():
        if (wide[:, is_log] <= 0).any():
            raise Unfit("expected positive values in columns whose logarithm is taken, found others")
        wide[:, is_log] = np.log(wide[:, is_log])
    means, scales = (np.array([getattr(one, name) for one in columns]) for name in ("mean", "scale"))
    features: NDArray[np.float32] = ((wide - means) / scales).astype(np.float32)
    return features


def values_of(features: NDArray[np.float32], columns: Sequence[spec.FeatureColumn]) -> NDArray[np.float32]:
    """Return rows of values that the columns turn into features, float32 (T, F), as close as 32 bits are."""
    means, scales = (np.array([getattr(one, name) for one in columns]) for name in ("mean", "scale"))
    values = features.astype(np.float64) * scales + means
    is_log = np.array([one.transform == "log" for one in columns])
    with np.errstate(over="ignore"):
        values[:, is_log] = np.exp(values[:, is_log])
        found: NDArray[np.float32] = values.astype(np.float32)
        return found
