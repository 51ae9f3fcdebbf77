"""Makes the golden examples of a version: sequences, the original's outputs, and how callers send them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.convert.cases import Case
from training.convert.converted import Converted, Example
from training.convert.foreign import Refused
from training.convert.meaning.checking_pairs import Matched
from training.convert.meaning.meaning import Meaning
from training.convert.meaning.samples import Given, Unfit, features_of, sample_of, values_of
from training.export.export import ADMISSION_TOLERANCE, GOLDEN_STEPS

# model.json may have 4 MiB; a number takes about 12 characters of it.
_MAX_NUMBERS = 150_000
_MAX_TEXT = 200_000
_MAX_EXAMPLES = 24
# Admission allows so many times the largest difference that the proof found: other processors sum in another
# order.
_MARGIN = 4.0
# The contract's bound on a tolerance, of the largest golden output, or where all are small.
_LARGEST_PART, _SMALLEST_LIMIT = 0.1, 1e-3
_CLOSE = 5e-5


@dataclass(frozen=True, slots=True)
class Goldens:
    """Golden examples as model.json has them.

    Attributes:
        examples: in the form of `spec.Golden`, without what is empty.
        tolerance: largest absolute difference that admission allows.
        given: how many of them are the user's own.
    """

    examples: tuple[dict[str, Any], ...]
    tolerance: float
    given: int


def goldens_of(converted: Converted, meaning: Meaning, matched: Sequence[Matched]) -> Goldens:
    """Return the golden examples of a version.

    Args:
        converted: the network, with examples that the original computed.
        meaning: what numbers mean.
        matched: the user's own examples that agree.

    Raises:
        Refused: no example is a whole window, or outputs are so many that model.json cannot hold a row.
    """
    own = _of_window(converted, meaning)
    tolerance = _tolerance(converted, own)
    # Those that are rounded too far are checked, and not kept.
    given = [one for one in matched if one.difference <= tolerance / 2][:_MAX_EXAMPLES]
    found = [_of_matched(one) for one in given] + [_of_example(one, meaning) for one in own]
    # The original's own come first, so that one of them is always kept.
    kept = _affordable([*found[len(given) :], *found[: len(given)]])
    return Goldens(tuple(kept), tolerance, max(0, len(kept) - len(own)))


def _of_window(converted: Converted, meaning: Meaning) -> list[Example]:
    """Return the original's examples, those of a window's length where there is a window."""
    window = meaning.window
    found = [one for one in converted.examples if window is None or len(one.inputs) == window.to]
    if not found:
        raise Refused(f"expected examples of {window.to if window else 1} steps, the window, found none")
    return found


def _tolerance(converted: Converted, examples: Sequence[Example]) -> float:
    """Return what admission allows: more than the proof found, and never more than the contract does."""
    largest = max(float(np.abs(one.outputs).max()) for one in examples)
    wanted = max(ADMISSION_TOLERANCE, _MARGIN * converted.difference) * max(1.0, largest)
    return float(min(float(f"{wanted:.2g}"), max(_SMALLEST_LIMIT, _LARGEST_PART * largest)))


def _of_example(one: Example, meaning: Meaning) -> dict[str, Any]:
    """Return an example of the original, with the text or values that a caller sends for it, if any."""
    golden = _golden(Case(one.inputs, one.initial, one.source), one.steps, one.outputs)
    if meaning.text is not None and (text := _text_of(one.inputs, meaning)) is not None:
        golden["text"] = text
    if one.source is not None and meaning.source_text is not None:
        text = meaning.source_text.decode(one.source.tolist())
        golden["source"] |= {} if text is None else {"text": text}
    if meaning.columns:
        values = values_of(one.inputs, meaning.columns)
        if (back := _features(values, meaning)) is not None and np.allclose(back, one.inputs, _CLOSE, _CLOSE):
            golden["values"] = _numbers(values)
    return golden


def _features(values: NDArray[np.float32], meaning: Meaning) -> NDArray[np.float32] | None:
    try:
        return features_of(values, meaning.columns)
    except Unfit:  # values too large for 32 bits have no logarithm any more
        return None


def _text_of(tokens: NDArray[np.int64], meaning: Meaning) -> str | None:
    """Return a text that becomes exactly these tokens, None where there is none."""
    assert meaning.text is not None, "there is a tokenizer"
    ids = tokens.tolist()
    if isinstance(meaning.section, spec.Generation) and meaning.section.prepend_start:
        if ids[0] != meaning.section.start_token:
            return None
        ids = ids[1:]
    text = meaning.text.decode(ids)
    if text is None:
        return None
    size = int(max(tokens)) + 1
    try:
        sample = sample_of(Given(text), meaning, spec.TokenInput(kind="tokens", size=size))
    except Unfit:
        return None
    return text if np.array_equal(sample.case.inputs, tokens) else None


def _of_matched(one: Matched) -> dict[str, Any]:
    golden = _golden(one.sample.case, *_few(one))
    if one.sample.text is not None:
        golden["text"] = one.sample.text
    if one.sample.values is not None:
        golden["values"] = _numbers(one.sample.values)
    if one.sample.source_text is not None:
        golden["source"]["text"] = one.sample.source_text
    return golden


def _few(one: Matched) -> tuple[tuple[int, ...], NDArray[np.float32]]:
    """Return a few of the steps of an example, and the outputs there."""
    places = _spread(range(len(one.steps)))
    return tuple(one.steps[place] for place in places), one.outputs[list(places)]


def _spread(steps: Sequence[int]) -> tuple[int, ...]:
    """Return the first, middle and last of some steps."""
    shares = (round(share * (len(steps) - 1) / (GOLDEN_STEPS - 1)) for share in range(GOLDEN_STEPS))
    return tuple(sorted({steps[place] for place in shares}))


def _golden(case: Case, steps: Sequence[int], outputs: NDArray[np.float32]) -> dict[str, Any]:
    golden = _sequence(case.inputs)
    if case.source is not None:
        golden["source"] = _sequence(case.source)
    if case.initial:
        golden["initial"] = {name: _numbers(row) for name, row in case.initial.items()}
    return golden | {"steps": list(map(int, steps)), "outputs": _numbers(outputs)}


def _sequence(inputs: NDArray[Any]) -> dict[str, Any]:
    return {"tokens" if inputs.dtype.kind in "iu" else "features": _numbers(inputs)}


def _numbers(array: NDArray[Any]) -> list[Any]:
    """Return an array as lists; numbers of 32 bits are the shortest ones that are read as the same."""
    if array.dtype.kind in "iu":
        return list(array.tolist())
    if array.ndim == 1:
        return [float(str(value)) for value in array.astype(np.float32)]
    return [_numbers(row) for row in array]


def _affordable(examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples that model.json has room for; a large one keeps its last step alone."""
    kept: list[dict[str, Any]] = []
    left, text_left = _MAX_NUMBERS, _MAX_TEXT
    for one in examples[:_MAX_EXAMPLES]:
        tried = one
        if _size(tried) > left:
            tried = {**one, "steps": one["steps"][-1:], "outputs": one["outputs"][-1:]}
        size, characters = _size(tried), len(json.dumps(tried.get("text", "")))
        if size <= left and characters <= text_left:
            kept.append(tried)
            left, text_left = left - size, text_left - characters
    if not kept:
        raise Refused(
            f"expected golden examples of at most {_MAX_NUMBERS} numbers, found {_size(examples[0])} "
            "in the smallest one",
            "outputs of so many columns do not fit in model.json",
        )
    return kept


def _size(golden: dict[str, Any]) -> int:
    """Return the number of numbers of an example."""
    inputs = golden.get("tokens") or [value for row in golden.get("features", ()) for value in row]
    values = len(golden.get("values", ())) * (len(golden["values"][0]) if golden.get("values") else 0)
    return len(inputs) + values + sum(map(len, golden["outputs"]))
