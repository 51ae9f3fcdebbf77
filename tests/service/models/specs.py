"""Small specs of contract 2, one for each use of a network, and one of contract 1."""

import json
from typing import Any

from service.contract.spec import ModelSpec, parse_spec

HASH = "0" * 64
ORIGIN = {"data": "d", "data_licence": "l", "data_sha256": HASH, "recipe": "r", "commit": "c", "seed": 0}
TOKENIZER = {"kind": "tokenizer", "file": "tokenizer.json"}
STATE = {"input": "h", "output": "h.next", "size": 4, "start": 0.5}
LAYER = {"kind": "gru", "width": 4, "activations": ["Tanh"]}


def made(task: str, section: dict[str, Any], width: int, outputs: int, **changes: Any) -> ModelSpec:
    """A spec of contract 2 with one golden example of one step; tokens go in unless there are columns."""
    has_columns = "columns" in section
    kind = "features" if has_columns else "tokens"
    golden = {"features": [[0.0] * width]} if has_columns else {"tokens": [0]}
    document = {
        "contract": 2,
        "kind": "chunk",
        "name": "model",
        "version": 3,
        "task": task,
        "layers": [LAYER],
        "state": [STATE],
        "input": {"kind": kind, "size": width},
        "outputs": outputs,
        {"text-generation": "generation", "text-classification": "classification"}.get(task, task): section,
        "variants": {"fp32": {"file": "model.onnx", "batch_invariant": True, "tolerance": 1e-4}},
        "files": dict.fromkeys(("model.onnx", "tokenizer.json", "other.json", "init.onnx"), HASH),
        "golden": [golden | {"steps": [0], "outputs": [[0.0] * outputs]}],
        "metrics": {"accuracy": 0.5},
        "provenance": ORIGIN
        | {"created": "today", "versions": {}, "source": {"file": "a.onnx", "sha256": HASH}},
    }
    return parse_spec(json.dumps(document | changes))


def columns(*names: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "unit": "m", "transform": "none", "reference": "a", "scale": 1.0} for name in names
    ]


def of_contract_1() -> ModelSpec:
    document = json.loads(SPECS["writer"].model_dump_json(exclude_none=True)) | {"contract": 1}
    states = [{"input": "layer0.h", "output": "layer0.h.next", "size": 4}]
    return parse_spec(
        json.dumps(
            {key: value for key, value in document.items() if key != "kind"}
            | {"cell": "gru", "layers": 1, "hidden": 4, "state": states}
        )
    )


SPECS: dict[str, ModelSpec] = {
    "writer": made(
        "text-generation",
        {
            "text": {
                "kind": "characters",
                "vocabulary": "ab'",
                "normalization": {"form": "NFC", "characters": {"\u2019": "'"}},
            },
            "start_token": 0,
            "max_tokens": 5,
        },
        3,
        3,
    ),
    "critic": made("text-classification", {"text": TOKENIZER, "labels": ["positive", "negative"]}, 4, 2),
    "market": made(
        "forecasting",
        {
            "columns": columns("a", "b"),
            "target": "a",
            "horizon": 1,
            "quantiles": [0.1, 0.5],
            "scales": [1.0],
            "least_observations": 2,
        },
        2,
        2,
    ),
    "sensor": made(
        "sequences",
        {
            "columns": [{"name": "a", "unit": "g"}, {"name": "b", "unit": "g"}],
            "output": {"kind": "logits", "labels": ["walk", "run"], "steps": "last"},
        },
        2,
        2,
        window={"to": 1, "side": "left"},
    ),
    "caption": made(
        "sequences",
        {
            "text": TOKENIZER,
            "output": {"kind": "numbers", "columns": [{"name": "y", "unit": "m"}], "steps": "every"},
        },
        4,
        1,
        init={"file": "init.onnx", "inputs": [{"name": "image", "size": 1}]},
        golden=[{"tokens": [0], "initial": {"image": [0.0]}, "steps": [0], "outputs": [[0.0]]}],
    ),
    "translator": made(
        "text-generation",
        {"text": {"kind": "characters", "vocabulary": "ab"}, "start_token": 0, "max_tokens": 5},
        2,
        2,
        init={
            "file": "init.onnx",
            "source": {
                "input": {"kind": "tokens", "size": 4},
                "text": TOKENIZER,
                "max_steps": 9,
                "layers": [LAYER | {"direction": "both"}],
            },
        },
        golden=[{"tokens": [0], "source": {"tokens": [3]}, "steps": [0], "outputs": [[0.0] * 2]}],
    ),
    "pilot": made(
        "text-generation",
        {"text": {"kind": "characters", "vocabulary": "ab"}, "start_token": 0, "max_tokens": 5},
        2,
        2,
        init={
            "file": "init.onnx",
            "source": {"input": {"kind": "features", "size": 1}, "columns": [{"name": "x", "unit": "m"}]},
        },
        golden=[
            {"tokens": [0], "source": {"features": [[0.5]]}, "steps": [0], "outputs": [[0.0] * 2]},
        ],
    ),
    "whole": made(
        "sequences",
        {"output": {"kind": "embedding", "steps": "last"}},
        4,
        2,
        kind="whole",
        padding="lengths",
        pooled=True,
        state=[],
        layers=[LAYER | {"direction": "both"}],
    ),
}
SPECS["raw"] = made(
    "sequences",
    {"output": {"kind": "embedding", "steps": "last"}},
    4,
    2,
    input={"kind": "features", "size": 4},
    golden=[{"features": [[0.0] * 4], "steps": [0], "outputs": [[0.0] * 2]}],
)
SPECS["old"] = of_contract_1()
