"""Finds out why a user's example disagrees with the converted network, by preparing it in other ways."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.foreign import Array
from training.convert.meaning.meaning import Meaning
from training.convert.meaning.samples import Given

Rows = NDArray[np.float32]
# Returns whether an example agrees when it is prepared, and its outputs read, in another way.
Agrees = Callable[[Given, Meaning, Callable[[Rows], Rows]], bool]

_COUNTS = {1: "one", 2: "two", 3: "three"}
# Where nobody said a window: a network that has settled agrees with more than one of them.
_USUAL_LENGTHS = (*range(10, 210, 10), 12, 16, 24, 32, 48, 64, 128, 250, 256, 300, 400, 500, 512, 1000)

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
    yield from _other_outputs(given, meaning)
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
        sequence = np.asarray(meaning.text.encode(sequence), np.int64) if meaning.text else np.zeros(0)
    reversed_ = replace(given, sequence=sequence[::-1].copy())
    yield _Attempt(reversed_, meaning, _as_they_are, "it agrees with its time steps reversed")
    if taken.kind == "tokens":
        yield from _other_ids(given, meaning, sequence)


def _other_outputs(given: Given, meaning: Meaning) -> Iterator[_Attempt]:
    """Yield attempts that read the outputs as logits."""
    section = meaning.section
    output = section.output if isinstance(section, spec.SequencesSpec) else None
    is_done = output is not None and output.kind == "probabilities"
    twice = "which the network has applied already: leave out the second one of your pipeline"
    said = twice if is_done else "say --output logits"
    yield _Attempt(given, meaning, softmax, f"it agrees after a softmax{', ' if is_done else ': '}{said}")
    said = twice if is_done else "say --output logits --several"
    yield _Attempt(given, meaning, sigmoid, f"it agrees after a sigmoid{', ' if is_done else ': '}{said}")


def _other_ids(given: Given, meaning: Meaning, ids: Array) -> Iterator[_Attempt]:
    """Yield attempts with other token ids: people count from 1, and Keras's IMDB data from 3."""
    for step in (1, -1, 2, -2, 3, -3):
        number, words = _COUNTS[abs(step)], "higher" if step > 0 else "lower"
        if len(ids) and ids.min() + step >= 0:
            yield _Attempt(
                replace(given, sequence=ids + step),
                meaning,
                _as_they_are,
                f"it agrees with token ids that are {number} {words}: shift the ids"
                + (" of the tokenizer" if isinstance(given.sequence, str) else ""),
            )


def _other_windows(given: Given, meaning: Meaning) -> Iterator[_Attempt]:
    window = meaning.window
    if window is None:
        yield from _windows(given, meaning)
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


def _windows(given: Given, meaning: Meaning) -> Iterator[_Attempt]:
    """Yield attempts with padding to usual lengths, which many pipelines do to all their sequences."""
    for to in _USUAL_LENGTHS:
        for side in ("left", "right"):
            window = spec.Window(to=to, side=side, value=0, longer="refuse")
            yield _Attempt(
                given,
                replace(meaning, window=window),
                _as_they_are,
                f"it agrees with padding at the {side} to {to} steps: if every sequence was padded to one "
                f"length in training, say --window LENGTH --pad {side}",
            )
