"""Tests of service.contract.contracts: what contract 2 accepts and refuses."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec

Described = dict[str, Any]
HASH = "0" * 64

CHUNK: Described = {
    "contract": 2,
    "name": "activity",
    "version": 3,
    "task": "sequences",
    "kind": "chunk",
    "layers": [
        {"kind": "gru", "width": 4},
        {"kind": "lstm", "width": 3, "activations": ["Sigmoid", "Tanh", "Elu"]},
    ],
    "input": {"kind": "features", "size": 2},
    "outputs": 3,
    "state": [
        {"input": "memory", "output": "memory_out", "size": 4},
        {"input": "h0", "output": "hn", "size": 3, "start": 0.5},
        {"input": "c0", "output": "cn", "size": 3, "start": [0.0, -1.0, 2.0]},
    ],
    "sequences": {
        "columns": [{"name": "ax", "unit": "m/s2", "mean": 0.1, "scale": 2.0}, {"name": "ay"}],
        "output": {"kind": "logits", "labels": ["walk", "run", "sit"], "steps": "last"},
    },
    "variants": {"fp32": {"file": "model.onnx", "batch_invariant": True, "tolerance": 1e-4}},
    "files": {"model.onnx": HASH},
    "golden": [{"features": [[0.0, 1.0], [1.0, 0.0]], "steps": [0, 1], "outputs": [[0.0] * 3, [1.0] * 3]}],
    "metrics": {},
    "provenance": {"created": "2026-11-30T00:00:00Z"},
}
WHOLE: Described = CHUNK | {
    "kind": "whole",
    "layers": [{"kind": "lstm", "width": 4, "direction": "both"}],
    "state": [],
    "padding": "lengths",
    "pooled": True,
    "golden": [{"features": [[0.0, 1.0], [1.0, 0.0]], "steps": [1], "outputs": [[0.0] * 3]}],
}
TAGS: Described = CHUNK | {
    "input": {"kind": "tokens", "size": 3},
    "sequences": {
        "text": {"kind": "characters", "vocabulary": "abc"},
        "output": {"kind": "probabilities", "labels": ["x", "y", "z"], "exclusive": False, "steps": "every"},
    },
    "golden": [{"tokens": [0, 2], "text": "ac", "steps": [1], "outputs": [[0.0] * 3]}],
}
CAPTION: Described = CHUNK | {
    "init": {"file": "init.onnx", "inputs": [{"name": "image", "size": 2}]},
    "files": {"model.onnx": HASH, "init.onnx": HASH},
    "golden": [CHUNK["golden"][0] | {"initial": {"image": [0.5, 0.25]}}],
}
WINDOW: Described = CHUNK | {"window": {"to": 2, "side": "left", "value": -1.0}}
ALL = {"chunk": CHUNK, "whole": WHOLE, "tags": TAGS, "caption": CAPTION, "window": WINDOW}


def changed(described: Described, path: str, value: Any) -> str:
    """Return the text of a document with one value replaced, or removed if it is None."""
    document = deepcopy(described)
    place: Any = document
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document)


@pytest.mark.parametrize("name", ALL)
def test_document_is_read_and_written_again(name: str) -> None:
    read = spec.parse_spec(json.dumps(ALL[name]))
    assert isinstance(read, spec.SpecV2)
    assert spec.parse_spec(read.model_dump_json()) == read
    assert spec.parse_spec(read.model_dump_json(exclude_none=True)) == read


def test_network_says_what_the_document_says() -> None:
    network = spec.parse_spec(json.dumps(CHUNK)).network
    assert (network.kind, network.cell, network.hidden, network.words) == (
        "chunk",
        "gru+lstm",
        4,
        "gru 4, lstm 3",
    )
    assert [state.start for state in network.states] == [0.0, 0.5, [0.0, -1.0, 2.0]]
    assert network.is_streamable
    whole = spec.parse_spec(json.dumps(WHOLE)).network
    assert (whole.padding, whole.is_pooled, whole.is_streamable) == ("lengths", True, False)
    assert whole.words == "lstm, 1 x 4, bidirectional"
    window = spec.parse_spec(json.dumps(WINDOW)).network
    assert not window.is_streamable


def test_files_of_a_tokenizer_and_an_init_graph_are_referred_to() -> None:
    assert spec.parse_spec(json.dumps(CAPTION)).referenced_files() == ["model.onnx", "init.onnx"]
    words = changed(TAGS, "sequences.text", {"kind": "tokenizer", "file": "tokenizer.json"})
    assert "files must give the sha256 of tokenizer.json" in refusal_of(words)


def refusal_of(text: str) -> str:
    with pytest.raises(spec.SpecError) as refusal:
        spec.parse_spec(text)
    return str(refusal.value)


BOTH = {"kind": "lstm", "width": 3, "direction": "both"}
STATE = {"input": "h0", "output": "hn", "size": 3}


@pytest.mark.parametrize(
    ("name", "path", "value", "found"),
    [
        ("chunk", "layers.1", BOTH, "layers[1].direction must be forward for a chunk cell, found both"),
        ("chunk", "layers.1", BOTH, "convert it as whole"),
        ("chunk", "layers.0.kind", "mamba", "layers[0].kind: expected 'rnn', 'lstm' or 'gru', found"),
        ("chunk", "state", [], "state must hold one tensor or more for a chunk cell"),
        ("chunk", "state.1.input", "memory", "state[1] must have names of its own"),
        ("chunk", "state.1.output", "lengths", "state[1] must have names of its own"),
        ("chunk", "state.2.start", [1.0, 2.0], "start must be one number or 3, found 2"),
        ("chunk", "padding", "none", "padding must be left out for a chunk cell"),
        ("chunk", "pooled", False, "pooled must be left out for a chunk cell"),
        ("chunk", "sequences.output.labels", ["a", "b"], "outputs, one a label, must be 2, found 3"),
        ("chunk", "sequences.output.labels", ["a", "a", "b"], "labels must differ"),
        ("chunk", "sequences.output.kind", "embedding", "labels must stand beside logits or probabilities"),
        ("chunk", "sequences.output.columns", [{"name": "x"}], "columns must stand beside numbers"),
        ("chunk", "sequences.columns.1.name", "ax", "column names must differ"),
        (
            "chunk",
            "sequences.output",
            {"kind": "numbers", "columns": [{"name": "x"}, {"name": "x"}], "steps": "last"},
            "sequences.output: column names must differ, found ['x', 'x']",
        ),
        (
            "chunk",
            "sequences.output",
            {"kind": "logits", "labels": ["a", "", "c"], "exclusive": False, "steps": "last"},
            "labels of which several hold must not be empty",
        ),
        (
            "chunk",
            "sequences.output",
            {"kind": "logits", "labels": ["speech"], "steps": "last"},
            "labels must be two or more where exactly one holds, found one",
        ),
        (
            "tags",
            "golden.0.outputs.0.0",
            1.5,
            "golden[0].outputs must be 0..1 where sequences.output.kind is probabilities, found 1.5",
        ),
        ("chunk", "sequences.columns.1.scale", 0.0, "sequences.columns[1].scale: expected more than 0"),
        ("chunk", "sequences.columns", [{"name": "ax"}], "input.size must be 1, found 2"),
        ("chunk", "sequences.text", TAGS["sequences"]["text"], "must be tokens, found features"),
        (
            "chunk",
            "sequences",
            None,
            "exactly the section of task sequences must be given, found those of []",
        ),
        ("chunk", "golden.0.values", [[1.0, 2.0]], "golden[0] must hold a row of values for each row"),
        (
            "chunk",
            "golden.0.initial",
            {"image": [1.0]},
            "golden[0].initial must hold the init graph's inputs",
        ),
        ("chunk", "init", {"file": "x", "inputs": []}, "init: inputs must hold one or more where"),
        ("whole", "padding", None, "padding must be given for a whole network"),
        ("whole", "pooled", None, "pooled must be given for a whole network"),
        ("whole", "state", [STATE], "state and init must be left out for a whole network"),
        ("whole", "sequences.output.steps", "every", "steps must be last for a pooled network"),
        ("whole", "golden.0.steps", [0], "golden[0].steps must be the last step of a pooled network"),
        ("tags", "outputs", 4, "outputs, one a label, must be 3, found 4"),
        ("tags", "sequences.text.vocabulary", "ab", "input.size must be 2, found 3"),
        (
            "caption",
            "golden.0.initial",
            {"image": [0.5]},
            "golden[0].initial must hold the init graph's inputs",
        ),
        ("caption", "files", {"model.onnx": HASH}, "files must give the sha256 of init.onnx"),
        ("window", "golden.0.features", [[0.0, 1.0]], "golden[0] must hold 2 steps, a whole window, found 1"),
        (
            "chunk",
            "variants.fp32.tolerance",
            0.2,
            "variants.fp32.tolerance must be at most 0.1, a tenth of the largest golden output",
        ),
        (
            "whole",
            "variants.fp32.tolerance",
            0.01,
            "variants.fp32.tolerance must be at most 0.001, a tenth of",
        ),
        ("window", "window.to", 0, "window.to: expected at least 1, found 0"),
        ("window", "window.side", "middle", "window.side: expected 'left' or 'right'"),
    ],
)
def test_damaged_document_is_refused_in_a_sentence(name: str, path: str, value: Any, found: str) -> None:
    refusal = refusal_of(changed(ALL[name], path, value))
    assert found in refusal
    assert "\n" not in refusal


def test_window_of_tokens_is_padded_with_a_token() -> None:
    document = TAGS | {"window": {"to": 2, "side": "right", "value": 3.0}}
    assert "window.value must be a token id below 3, found 3" in refusal_of(json.dumps(document))


@pytest.mark.parametrize("task", ["text-generation", "forecasting"])
def test_task_that_goes_on_step_by_step_needs_a_chunk_cell(task: str) -> None:
    forecasting = {
        "columns": [
            {"name": name, "unit": "", "transform": "none", "reference": name, "scale": 1.0} for name in "ab"
        ],
        "target": "a",
        "horizon": 3,
        "quantiles": [0.5],
        "scales": [1.0] * 3,
        "least_observations": 1,
    }
    generation = {"text": TAGS["sequences"]["text"], "start_token": 0, "max_tokens": 5}
    base, section = (
        (WHOLE, {"forecasting": forecasting})
        if task == "forecasting"
        else (WHOLE | {"input": TAGS["input"], "golden": [TAGS["golden"][0]]}, {"generation": generation})
    )
    document = {name: value for name, value in base.items() if name != "sequences"} | {"task": task} | section
    assert f"kind must be chunk for {task}" in refusal_of(json.dumps(document))


@pytest.mark.parametrize(
    ("contract", "found"),
    [(0, "0"), (3, "3"), (True, "true"), ("2", '"2"'), (2.0, "2.0"), (None, "null"), ([2] * 99, "[2, 2")],
)
def test_other_contract_is_refused_by_its_number(contract: object, found: str) -> None:
    text = json.dumps(CHUNK | {"contract": contract})
    assert f"contract: expected 1 or 2, found {found}" in refusal_of(text)
    assert len(refusal_of(text)) < 200


PATHS = [
    *("task", "kind", "layers", "layers.0", "layers.0.width", "input", "input.size", "outputs", "state"),
    *("state.0", "state.0.size", "state.2.start", "sequences", "sequences.columns", "sequences.output"),
    *("sequences.output.labels", "sequences.output.steps", "golden", "golden.0", "golden.0.steps"),
    *("golden.0.features", "golden.0.outputs", "variants", "files", "provenance"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["chunk", "caption", "window"]), st.sampled_from(PATHS), JSON)
def test_any_value_anywhere_is_taken_or_refused_in_short(name: str, path: str, value: Any) -> None:
    text = changed(ALL[name], path, value)
    message = ""
    try:
        spec.parse_spec(text)
    except spec.SpecError as refusal:
        message = str(refusal)
    assert len(message) < 3000
