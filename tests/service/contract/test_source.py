"""service.contract.source: what an encoder reads, and sources of golden examples."""

import json
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec
from service.contract.source import check_golden_source
from service.contract.spec import GoldenInput, SourceSpec
from tests.service.contract.test_contracts import CHUNK, HASH, changed, refusal_of

DIGITS: dict[str, Any] = {
    "input": {"kind": "tokens", "size": 3},
    "text": {"kind": "characters", "vocabulary": "012"},
    "max_steps": 4,
}
TRANSLATOR: dict[str, Any] = {
    key: value for key, value in CHUNK.items() if key not in ("sequences", "golden", "task", "input")
} | {
    "task": "text-generation",
    "input": {"kind": "tokens", "size": 3},
    "generation": {"text": {"kind": "characters", "vocabulary": "abc"}, "start_token": 0, "max_tokens": 5},
    "init": {"file": "init.onnx", "source": DIGITS},
    "files": {"model.onnx": HASH, "init.onnx": HASH, "words.json": HASH},
    "golden": [
        {"tokens": [0], "source": {"tokens": [2, 1], "text": "21"}, "steps": [0], "outputs": [[0.0] * 3]}
    ],
}
ROWS: dict[str, Any] = {
    "input": {"kind": "features", "size": 2},
    "columns": [{"name": "x", "unit": "m"}, {"name": "y", "mean": 1.0}],
}
SENSED = TRANSLATOR | {
    "init": {"file": "init.onnx", "inputs": [{"name": "image", "size": 1}], "source": ROWS},
    "golden": [
        {
            "tokens": [0],
            "initial": {"image": [1.0]},
            "source": {"features": [[0.0, -1.0]], "values": [[0.0, 0.0]]},
            "steps": [0],
            "outputs": [[0.0] * 3],
        }
    ],
}
BOTH = {"translator": TRANSLATOR, "sensed": SENSED}


@pytest.mark.parametrize("name", BOTH)
def test_document_with_a_source_is_read_and_written_again(name: str) -> None:
    read = spec.parse_spec(json.dumps(BOTH[name]))
    assert read.source is not None
    assert read.source.kind == {"translator": "text", "sensed": "steps"}[name]
    assert spec.parse_spec(read.model_dump_json(exclude_none=True)) == read


def test_source_without_a_bound_takes_a_few_thousand_steps() -> None:
    read = spec.parse_spec(json.dumps(SENSED)).source
    assert read is not None
    assert read.max_steps == 4096


def test_tokenizer_of_the_source_is_referred_to_beside_that_of_the_target() -> None:
    words = changed(TRANSLATOR, "init.source.text", {"kind": "tokenizer", "file": "words.json"})
    assert spec.parse_spec(words).referenced_files() == ["model.onnx", "words.json", "init.onnx"]
    other = changed(TRANSLATOR, "init.source.text", {"kind": "tokenizer", "file": "other.json"})
    assert "files must give the sha256 of other.json" in refusal_of(other)


SEQUENCES = {
    "text": TRANSLATOR["generation"]["text"],
    "output": {"kind": "embedding", "steps": "last"},
}


@pytest.mark.parametrize(
    ("name", "path", "value", "found"),
    [
        ("translator", "init.source", None, "init: inputs must hold one or more where there is no source"),
        ("translator", "init.inputs", [{"name": "source", "size": 2}], "inputs must not be named source"),
        ("translator", "init.source.max_steps", 0, "init.source.max_steps: expected at least 1, found 0"),
        ("translator", "init.source.max_steps", 1 << 17, "init.source.max_steps: expected at most 65536"),
        ("translator", "init.source.input.size", 4, "input.size must be 3, as many as characters, found 4"),
        ("translator", "init.source.columns", ROWS["columns"], "with columns must be features, found tokens"),
        ("sensed", "init.source.text", DIGITS["text"], "with text must be tokens, found features"),
        ("sensed", "init.source.input.size", 3, "input.size must be 2, as many as columns, found 3"),
        ("sensed", "init.source.columns.1.name", "x", "column names must differ, found ['x', 'x']"),
        ("translator", "golden.0.source", None, "golden[0] must hold the source that the init graph reads"),
        ("translator", "golden.0.source.tokens", None, "golden[0].source must hold tokens alone"),
        ("translator", "golden.0.source.features", [[0.0]], "golden[0].source must hold tokens alone"),
        ("translator", "golden.0.source.tokens", [0] * 5, "must hold 1..4 steps, max_steps, found 5"),
        ("translator", "golden.0.source.tokens", [], "must hold 1..4 steps, max_steps, found 0"),
        ("translator", "golden.0.source.tokens", [3], "golden[0].source must hold tokens below 3"),
        ("translator", "init.source.text", None, "golden[0].source must hold no text"),
        ("sensed", "golden.0.source.features", [[0.0]], "source.features must hold rows of 2 values"),
        ("sensed", "golden.0.source.values", [[0.0]], "source.values must hold rows of 2 values"),
        ("sensed", "golden.0.source.values", [[0.0] * 2] * 2, "a row of values for each row of features"),
        ("sensed", "golden.0.initial", {}, "golden[0].initial must hold the init graph's inputs"),
    ],
)
def test_damaged_source_is_refused_in_a_sentence(name: str, path: str, value: Any, found: str) -> None:
    refusal = refusal_of(changed(BOTH[name], path, value))
    assert found in refusal
    assert "\n" not in refusal


def test_model_of_another_task_takes_no_source() -> None:
    other = {key: value for key, value in TRANSLATOR.items() if key != "generation"}
    refusal = refusal_of(json.dumps(other | {"task": "sequences", "sequences": SEQUENCES}))
    assert "init.source must be left out for sequences, found one" in refusal


def test_example_of_a_model_without_an_encoder_has_no_source() -> None:
    plain = {key: value for key, value in TRANSLATOR.items() if key != "init"}
    assert "golden[0] must hold no source" in refusal_of(json.dumps(plain))


@given(
    st.lists(st.integers(-1, 4), max_size=6),
    st.none() | st.lists(st.lists(st.floats(-1, 1), min_size=1, max_size=3), max_size=4),
)
def test_source_of_an_example_is_admitted_if_the_encoder_can_read_it(
    tokens: list[int], rows: list[list[float]] | None
) -> None:
    """Whatever is admitted has 1..max_steps tokens of the vocabulary, and nothing else."""
    source = SourceSpec.model_validate(DIGITS)
    golden = GoldenInput(tokens=tokens, features=rows)
    fits = 1 <= len(tokens) <= 4 and all(0 <= token < 3 for token in tokens) and rows is None
    with nullcontext() if fits else pytest.raises(ValueError, match=r"^golden\[0\].source must hold"):
        check_golden_source("golden[0]", golden, source)
