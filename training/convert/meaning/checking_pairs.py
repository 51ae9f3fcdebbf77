"""Compares a user's own examples with the converted network, preprocessing included.

A network that is converted rightly still answers wrongly where its inputs are prepared in another way than
in training: unscaled, padded at the other side, cut into other tokens. Only pairs of the user's own pipeline
show that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.cases import Case
from training.convert.foreign import Refused
from training.convert.meaning.causes import cause_of, sigmoid, softmax
from training.convert.meaning.meaning import Meaning
from training.convert.meaning.pairs import OPTION, Pair
from training.convert.meaning.samples import Given, Sample, Unfit, sample_of
from training.errors import TrainingError

# People round what they write down.
TOLERANCE = 1e-3
# A column of outputs that is smaller than this part of the largest one is measured by this part of it.
_SMALLEST_COLUMN = 0.01
# Rounding is excused up to this part of the largest output, and where it is to so many decimals at most.
_LARGEST_ROUNDING = 0.01
_MOST_DECIMALS = 5

Rows = NDArray[np.float32]
Run = Callable[[Case], Rows]


class Matched(NamedTuple):
    """An example that agrees.

    Attributes:
        sample: the sequence.
        steps: time steps of which there are outputs.
        outputs: the user's outputs there, as the network gives them, float32 (steps, outputs).
        difference: largest absolute difference of the network's outputs from them.
    """

    sample: Sample
    steps: tuple[int, ...]
    outputs: Rows
    difference: float


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of comparing a user's examples.

    Attributes:
        count: number of examples.
        difference: largest difference; of numbers and embeddings as a part of the largest output of all
            examples, otherwise as a part of the larger of 1 and that.
        form: what the user's outputs are, in words: the network's own, or what the service answers with.
        matched: the examples, where the network's own outputs can be told from the user's.
    """

    count: int
    difference: float
    form: str
    matched: tuple[Matched, ...]


class _Form(NamedTuple):
    """A way to read the user's outputs.

    Attributes:
        words: what they are.
        theirs: turns the user's outputs into what is compared.
        ours: turns the network's outputs into what is compared.
        is_own: what is compared are the network's own outputs.
    """

    words: str
    theirs: Callable[[Rows], Rows]
    ours: Callable[[Rows], Rows]
    is_own: bool


def check_pairs(
    pairs: Sequence[Pair], meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput, run: Run
) -> Checked:
    """Compare a user's examples with what the converted network gives for them.

    Args:
        pairs: the examples.
        meaning: what numbers mean.
        taken: kind and size of the network's input.
        run: returns the network's outputs of a sequence alone, at every step or pooled.

    Raises:
        TrainingError: an example is none of a sequence that the network takes.
        Refused: an example disagrees; names it, what was expected and found, and the likely cause.
    """
    forms = _forms(meaning)
    sizes = [_sizes(pairs, form, meaning) for form in forms]
    largest = [0.0] * len(forms)
    worst: list[tuple[Pair, Rows] | None] = [None] * len(forms)
    matched: list[list[Matched]] = [[] for _ in forms]
    for pair in pairs:
        sample = _sample(pair, meaning, taken)
        rows = run(sample.case)
        steps, found = _compared(pair, sample, rows)
        for index, (form, size) in enumerate(zip(forms, sizes, strict=True)):
            difference = _difference(pair.outputs, found, form, size)
            # Negated, so that NaN is a disagreement.
            if not difference <= TOLERANCE and worst[index] is None:
                worst[index] = (pair, found)
            largest[index] = float(np.maximum(largest[index], difference))
            if form.is_own and np.isfinite(difference):
                matched[index].append(_matched(sample, steps, form.theirs(pair.outputs), found))
    for index, form in enumerate(forms):
        if worst[index] is None:
            return Checked(len(pairs), largest[index], form.words, tuple(matched[index]))
    closest = int(np.nanargmin(np.nan_to_num(largest, nan=np.inf)))
    first = worst[closest]
    assert first is not None, "every form has disagreed"
    raise _disagreement(first, closest, _Asked(meaning, taken, run, tuple(zip(forms, sizes, strict=True))))


def _matched(sample: Sample, steps: tuple[int, ...], outputs: Rows, found: Rows) -> Matched:
    return Matched(sample, steps, outputs, float(np.max(np.abs(outputs - found))))


def _sample(pair: Pair, meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput) -> Sample:
    try:
        return sample_of(pair.given, meaning, taken)
    except Unfit as error:
        raise TrainingError(f"{OPTION}: {pair.place}: {error}") from error


def _compared(pair: Pair, sample: Sample, rows: Rows) -> tuple[tuple[int, ...], Rows]:
    """Return the steps that the user's outputs are of, and the network's outputs there."""
    steps, given = len(sample.case.inputs), len(pair.outputs)
    own = range(sample.rows.start, sample.rows.stop)
    if given == 1 or len(rows) == 1:
        at: Sequence[int] = [steps - 1]
    else:
        at = range(steps) if given == steps else own
    if given != len(at):
        raise TrainingError(
            f"{OPTION}: {pair.place}: expected one row of outputs, or one for each of {len(own)} steps, "
            f"found {given}"
        )
    return tuple(at), rows[-1:] if len(rows) == 1 else rows[list(at)]


def _sizes(pairs: Sequence[Pair], form: _Form, meaning: Meaning) -> NDArray[np.float64]:
    """Return what a difference in each column of outputs is divided by.

    Numbers and embeddings may be small, such as the returns of a stock, so that a difference counts beside
    the largest of them; of logits and probabilities one of 1 and less counts as it is.
    """
    section = meaning.section
    is_numbers = isinstance(section, spec.ForecastSpec) or (
        isinstance(section, spec.SequencesSpec) and section.output.kind in ("numbers", "embedding")
    )
    widths = {pair.outputs.shape[1] for pair in pairs}
    if len(widths) != 1:
        return np.ones(1)
    columns = np.max([np.abs(form.theirs(pair.outputs)).max(axis=0) for pair in pairs], axis=0)
    largest = float(columns.max())
    if not is_numbers:
        return np.full(1, max(1.0, largest))
    if not largest > 0:
        return np.ones(1)
    row = np.zeros((1, widths.pop()), np.float32)
    shifted = np.full_like(row, _rounding(pairs))
    rounded = np.abs(form.theirs(shifted) - form.theirs(row))[0]
    excused = np.minimum(rounded, largest * _LARGEST_ROUNDING) / TOLERANCE
    sizes: NDArray[np.float64] = np.maximum(np.maximum(columns, largest * _SMALLEST_COLUMN), excused)
    return sizes


def _rounding(pairs: Sequence[Pair]) -> float:
    """Return a little more than half of the last decimal that all outputs are rounded to, 0 for none."""
    values = np.concatenate([pair.outputs.ravel() for pair in pairs]).astype(np.float64)
    for decimals in range(1, _MOST_DECIMALS + 1):
        if (np.abs(values - np.round(values, decimals)) <= np.finfo(np.float32).eps * np.abs(values)).all():
            return 0.6 * 0.1**decimals
    return 0.0


def _difference(expected: Rows, found: Rows, form: _Form, sizes: NDArray[np.float64]) -> float:
    """Return the largest difference as a part of the size of its column; infinite for another shape."""
    if expected.shape != found.shape:
        return np.inf
    return float(np.max(np.abs(form.theirs(expected) - form.ours(found)) / sizes))


def _as_they_are(rows: Rows) -> Rows:
    return rows


def _forms(meaning: Meaning) -> list[_Form]:
    """Return the forms that a user's outputs may have: the network's, and those of the service's answers."""
    forms = [_Form("the network's outputs", _as_they_are, _as_they_are, is_own=True)]
    section = meaning.section
    if isinstance(section, spec.SequencesSpec):
        output = section.output
        if output.columns:
            means, scales = (
                np.array([getattr(one, name) for one in output.columns]) for name in ("mean", "scale")
            )

            def unscaled(rows: Rows) -> Rows:
                # Compared as the network gives them: beside a large mean every difference looks small.
                found: Rows = ((rows.astype(np.float64) - means) / scales).astype(np.float32)
                return found

            forms.append(_Form("values in their units", unscaled, _as_they_are, is_own=True))
        if output.kind == "logits":
            is_softmax = output.exclusive and (output.labels is None or len(output.labels) > 1)
            read = softmax if is_softmax else sigmoid
            forms.append(_Form("probabilities", _as_they_are, read, is_own=False))
    return forms


class _Asked(NamedTuple):
    """What examples are compared by."""

    meaning: Meaning
    taken: spec.TokenInput | spec.FeatureInput
    run: Run
    forms: tuple[tuple[_Form, NDArray[np.float64]], ...]


def _disagreement(first: tuple[Pair, Rows], closest: int, asked: _Asked) -> Refused:
    """Return a refusal that names the example, its numbers and the likely cause."""
    pair, found = first
    form, sizes = asked.forms[closest]

    def agrees(given: Given, other: Meaning, read: Callable[[Rows], Rows]) -> bool:
        changed = replace(pair, given=given)
        try:
            sample = sample_of(given, other, asked.taken)
            _, rows = _compared(changed, sample, asked.run(sample.case))
        except (Unfit, TrainingError, Refused):  # this attempt does not run at all, so it explains nothing
            return False
        return any(_difference(pair.outputs, read(rows), one, by) <= TOLERANCE for one, by in asked.forms)

    expected = form.theirs(pair.outputs)
    of_it = " of the largest output" if sizes.max() != 1 else ""
    unit = " (in the network's units)" if form.is_own and closest else ""
    reason = (
        f"{OPTION}: {pair.place}: expected {_numbers(expected)}{unit} within {TOLERANCE:g}{of_it}, "
        f"found {_numbers(form.ours(found))}, {_difference(pair.outputs, found, form, sizes):.2g} off"
    )
    return Refused(reason, cause_of(pair.given, asked.meaning, asked.taken, agrees))


def _numbers(rows: Rows) -> str:
    shown = ", ".join(f"{value:.4g}" for value in rows[-1, :6].tolist())
    return f"{shown}{', ...' if rows.shape[1] > 6 else ''}" + (" at the last step" if len(rows) > 1 else "")
