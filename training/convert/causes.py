"""Finds out why a user's example disagrees with the converted network, by preparing it in other ways."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.meaning import Meaning
from training.convert.samples import Given

Rows = NDArray[np.float32]
# Returns whether an example agrees when it is prepared, and its outputs read, in another way.
Agrees = Callable[[Given, Meaning, Callable[[Rows], Rows]], bool]

USUAL = (
    "usual causes: features scaled in another way (--features), padding at the other side (--window, --pad), "
    "another tokenizer, a softmax more or less"
)


class _Attempt(NamedTuple):
    """One other way, with the sentence that explains a disagreement if it agrees."""

    given: Given
    meaning: Meaning
    read: Callable[[Rows], Rows]
    sentence: str


def cause_of(
    given: Given, meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput, agrees: Agrees
) -> str:
    """Return a sentence on what makes an example agree, or the usual causes."""
    for one in _attempts(given, meaning, taken):
        if agrees(one.given, one.meaning, one.read):
            return one.sentence
    return USUAL


def softmax(rows: Rows) -> Rows:
    """Return the probabilities of logits, row by row; of a single one by sigmoid."""
    if rows.shape[1] == 1:
        return sigmoid(rows)
    weights: Rows = np.exp(rows - rows.max(axis=1, keepdims=True))
    found: Rows = weights / weights.sum(axis=1, keepdims=True)
    return found


def sigmoid(rows: Rows) -> Rows:
    """Return 1 / (1 + exp(-x)) of every number."""
    with np.errstate(over="ignore"):
        found: Rows = (1 / (1 + np.exp(-rows))).astype(np.float32)
    return found


def _as_they_are(rows: Rows) -> Rows:
    return rows


def _attempts(
    given: Given, meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput
) -> Iterator[_Attempt]:
    yield _Attempt(given, meaning, softmax, "it agrees after a softmax: say --output logits")
    yield _Attempt(given, meaning, sigmoid, "it agrees after a sigmoid: say --output logits --several")
    if meaning.columns:
        unscaled = replace(meaning, columns=())
        yield _Attempt(
            given, unscaled, _as_they_are, "it agrees without --features: its rows are scaled already"
        )
    yield from _other_windows(given, meaning)
    sequence = given.sequence
    if isinstance(sequence, str):
        lowered = replace(given, sequence=sequence.lower())
        yield _Attempt(
            lowered,
            meaning,
            _as_they_are,
            "it agrees with its text in lower case: name the tokenizer's own file",
        )
        return
    reversed_ = replace(given, sequence=sequence[::-1].copy())
    yield _Attempt(reversed_, meaning, _as_they_are, "it agrees with its time steps reversed")
    if taken.kind == "tokens":
        for step, words in ((1, "higher"), (-1, "lower")):
            moved = replace(given, sequence=sequence + step)
            yield _Attempt(
                moved, meaning, _as_they_are, f"it agrees with token ids that are one {words}: shift the ids"
            )


def _other_windows(given: Given, meaning: Meaning) -> Iterator[_Attempt]:
    window = meaning.window
    if window is None:
        return
    other: spec.Window = window.model_copy(update={"side": "right" if window.side == "left" else "left"})
    yield _Attempt(
        given,
        replace(meaning, window=other),
        _as_they_are,
        f"it agrees with padding at the other side: say --pad {other.side}",
    )
    yield _Attempt(
        given, replace(meaning, window=None), _as_they_are, "it agrees without padding: leave --window out"
    )
