"""Makes inputs to try of the golden examples in a model's model.json.

Golden examples hold what the network got. Rows of features are turned back into the values that callers send,
by the transform of each column.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqserve.results import ModelInfo
from seqserve.tables.numbers import LARGEST

MAX_EXAMPLES = 12
START = 100.0
"""The value that every column of a series begins near: golden examples hold changes alone."""

Rows = list[list[float]]


def example_texts(model: ModelInfo) -> list[str]:
    """Return the texts of a model's golden examples, the longest first; none if it has none.

    Tokens without a text are turned back into one where each token is a character.
    """
    vocabulary = _vocabulary(model)
    texts = {
        each["text"]
        if isinstance(each.get("text"), str)
        else "".join(vocabulary[token] for token in each.get("tokens") or () if vocabulary)
        for each in _golden(model)
    }
    return sorted(filter(str.strip, texts), key=lambda text: (-len(text), text))[:MAX_EXAMPLES]


def example_tokens(model: ModelInfo) -> list[list[int]]:
    """Return the token ids of a model's golden examples, the longest first; none if it has none."""
    found = [list(each["tokens"]) for each in _golden(model) if each.get("tokens")]
    return sorted(found, key=len, reverse=True)[:MAX_EXAMPLES]


def example_steps(model: ModelInfo) -> list[Rows]:
    """Return the golden examples of a model for sequences as rows that callers may send, the longest first.

    Examples that cannot be turned back into finite values are left out.
    """
    section = model.spec.get("sequences")
    columns = section.get("columns") if isinstance(section, Mapping) else None
    found: list[Rows] = []
    for each in _golden(model):
        if rows := each.get("values") or _values(each.get("features") or (), columns or ()):
            found.append([list(row) for row in rows])
    return sorted(filter(_are_finite, found), key=len, reverse=True)[:MAX_EXAMPLES]


def example_series(model: ModelInfo) -> Rows:
    """Return the longest golden example of a forecasting model as observations; [] if it has none.

    They are those that model.json records, or else made of the features: one is the change of f(value) from
    the reference column one step before, in units of a scale. So
    the changes are those of the example, and all columns begin near START.
    """
    section = model.spec.get("forecasting")
    recorded = [each["values"] for each in _golden(model) if each.get("values")]
    if recorded:
        return [list(row) for row in max(recorded, key=len)]
    examples = [each["features"] for each in _golden(model) if each.get("features")]
    if not examples or not isinstance(section, Mapping):
        return []
    rows = _observations(max(examples, key=len), section["columns"])
    return rows if _are_finite(rows) else []


def init_inputs(model: ModelInfo) -> dict[str, int]:
    """Return the inputs of a model's init graph with their widths; {} for a model without one."""
    init = model.spec.get("init")
    inputs = init.get("inputs") if isinstance(init, Mapping) else None
    return {each["name"]: each["size"] for each in inputs or ()}


def example_initial(model: ModelInfo) -> dict[str, list[float]]:
    """Return what the init graph gets in the longest golden example; {} for a model without one."""
    golden = [each for each in _golden(model) if isinstance(each.get("initial"), Mapping)]
    longest = max(golden, key=lambda each: len(each.get("tokens") or each.get("features") or ()), default={})
    return {name: list(row) for name, row in longest.get("initial", {}).items()}


def _vocabulary(model: ModelInfo) -> str:
    """Return the characters of a model by their token ids; "" for a model with a tokenizer."""
    for task in ("sequences", "classification"):
        section = model.spec.get(task)
        text = section.get("text") if isinstance(section, Mapping) else None
        if isinstance(text, Mapping) and text.get("kind") == "characters":
            return str(text["vocabulary"])
    return ""


def _golden(model: ModelInfo) -> Sequence[Mapping[str, Any]]:
    golden = model.spec.get("golden")
    return [each for each in golden if isinstance(each, Mapping)] if isinstance(golden, list) else []


def _observations(features: Sequence[Sequence[float]], columns: Sequence[Mapping[str, Any]]) -> Rows:
    references = [[column["name"] for column in columns].index(column["reference"]) for column in columns]
    are_logs = [column["transform"] == "log" for column in columns]
    levels = [math.log(START) if is_log else START for is_log in are_logs]
    rows: Rows = []
    for step in features:
        changes = [feature * column["scale"] for feature, column in zip(step, columns, strict=True)]
        # The first observation is its own predecessor, so its reference has the level of this step.
        before = levels
        levels = [before[reference] + change for reference, change in zip(references, changes, strict=True)]
        rows.append([_inverse(level, is_log) for level, is_log in zip(levels, are_logs, strict=True)])
    return rows


def _values(features: Sequence[Sequence[float]], columns: Sequence[Mapping[str, Any]]) -> Rows:
    """Return rows of features as values: f(value) = feature * scale + mean."""
    if not columns:
        return [list(row) for row in features]
    return [
        [
            _inverse(
                feature * column.get("scale", 1.0) + column.get("mean", 0.0), column.get("transform") == "log"
            )
            for feature, column in zip(row, columns, strict=True)
        ]
        for row in features
    ]


def _inverse(level: float, is_log: bool) -> float:
    try:
        return math.exp(level) if is_log else level
    except OverflowError:
        return math.inf


def _are_finite(rows: Rows) -> bool:
    return all(math.isfinite(value) and abs(value) <= LARGEST for row in rows for value in row)
