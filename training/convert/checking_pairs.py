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
from training.convert.causes import cause_of, sigmoid, softmax
from training.convert.foreign import Refused
from training.convert.meaning import Meaning
from training.convert.pairs import OPTION, Pair
from training.convert.samples import Given, Sample, Unfit, sample_of
from training.fit import TrainingError

# Of the larger of 1 and the largest output: people round what they write down.
TOLERANCE = 1e-3

Rows = NDArray[np.float32]
Run = Callable[[Case], Rows]


class Matched(NamedTuple):
    """An example that agrees.

    Attributes:
        sample: the sequence.
        steps: time steps of which there are outputs.
        outputs: the user's outputs there, float32 (steps, outputs).
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
        difference: largest difference, of the larger of 1 and the largest output of an example.
        form: what the user's outputs are, in words: the network's own, or what the service answers with.
        matched: the examples, where their outputs are the network's own.
    """

    count: int
    difference: float
    form: str
    matched: tuple[Matched, ...]


class _Form(NamedTuple):
    """A way to read the user's outputs: in words, and as a function of the network's own outputs."""

    words: str
    read: Callable[[Rows], Rows]


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
    largest = [0.0] * len(forms)
    worst: list[tuple[Pair, Rows] | None] = [None] * len(forms)
    matched = []
    for pair in pairs:
        sample = _sample(pair, meaning, taken)
        rows = run(sample.case)
        steps, found = _compared(pair, sample, rows)
        if pair.outputs.shape == found.shape:
            apart = float(np.max(np.abs(pair.outputs - found)))
            matched.append(Matched(sample, steps, pair.outputs, apart))
        for index, form in enumerate(forms):
            difference = _difference(pair.outputs, form.read(found))
            # Negated, so that NaN is a disagreement.
            if not difference <= TOLERANCE and worst[index] is None:
                worst[index] = (pair, form.read(found))
            largest[index] = float(np.maximum(largest[index], difference))
    for index, form in enumerate(forms):
        if worst[index] is None:
            return Checked(len(pairs), largest[index], form.words, tuple(matched) if index == 0 else ())
    first = worst[0]
    assert first is not None, "every form has disagreed"
    raise _disagreement(*first, meaning, taken, run)


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


def _difference(expected: Rows, found: Rows) -> float:
    if expected.shape != found.shape:
        return np.inf
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.max(np.abs(expected - found))) / scale


def _forms(meaning: Meaning) -> list[_Form]:
    """Return the forms that a user's outputs may have: the network's, and those of the service's answers."""
    forms = [_Form("the network's outputs", lambda rows: rows)]
    section = meaning.section
    if isinstance(section, spec.SequencesSpec):
        output = section.output
        if output.columns:
            means, scales = (
                np.array([getattr(one, name) for one in output.columns]) for name in ("mean", "scale")
            )
            forms.append(
                _Form("values in their units", lambda rows: (rows * scales + means).astype(np.float32))
            )
        if output.kind == "logits":
            is_softmax = output.exclusive and (output.labels is None or len(output.labels) > 1)
            forms.append(_Form("probabilities", softmax if is_softmax else sigmoid))
    return forms


def _disagreement(
    pair: Pair, found: Rows, meaning: Meaning, taken: spec.TokenInput | spec.FeatureInput, run: Run
) -> Refused:
    """Return a refusal that names the example, its numbers and the likely cause."""

    def agrees(given: Given, other: Meaning, read: Callable[[Rows], Rows]) -> bool:
        changed = replace(pair, given=given)
        try:
            sample = sample_of(given, other, taken)
            _, rows = _compared(changed, sample, run(sample.case))
        except (Unfit, TrainingError, Refused):  # this attempt does not run at all, so it explains nothing
            return False
        return bool(_difference(pair.outputs, read(rows)) <= TOLERANCE)

    reason = (
        f"{OPTION}: {pair.place}: expected {_numbers(pair.outputs)} within {TOLERANCE:g}, "
        f"found {_numbers(found)}, {_difference(pair.outputs, found):.2g} off"
    )
    return Refused(reason, cause_of(pair.given, meaning, taken, agrees))


def _numbers(rows: Rows) -> str:
    shown = ", ".join(f"{value:.4g}" for value in rows[-1, :6].tolist())
    return f"{shown}{', ...' if rows.shape[1] > 6 else ''}" + (" at the last step" if len(rows) > 1 else "")
