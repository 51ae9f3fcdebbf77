"""service.api.model_info: what callers are told of a model, for every task and both contracts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqserve.v1 import models_pb2 as pb
from seqserve.v1 import sequences_pb2 as sequences
from service.api.model_info import describe
from service.contract.spec import SPEC_FILE, parse_spec
from tests import contract2
from tests.contract2_graphs import Net

LAST, EVERY = sequences.OUTPUT_STEPS_LAST, sequences.OUTPUT_STEPS_EVERY
Edit = Callable[[dict[str, Any]], None]


def told(folder: Path, edit: Edit | None = None) -> pb.Model:
    document = json.loads((folder / SPEC_FILE).read_text())
    if edit is not None:
        edit(document)
    model = pb.Model()
    describe(parse_spec(json.dumps(document)), model)
    return model


@pytest.mark.parametrize(
    ("name", "task", "input_kind", "output", "steps", "labels"),
    [
        ("letters", "text-generation", "text", "text", sequences.OUTPUT_STEPS_UNSPECIFIED, []),
        ("moods", "text-classification", "text", "label", LAST, ["negative", "positive"]),
        ("prices", "forecasting", "steps", "forecast", LAST, []),
    ],
)
def test_models_of_contract_1_are_told_in_the_terms_of_contract_2(
    models: Path, name: str, task: str, input_kind: str, output: str, steps: int, labels: list[str]
) -> None:
    found = told(models / name / "1")
    assert (found.task, found.kind, found.input, found.output) == (task, "chunk", input_kind, output)
    assert (found.output_steps, list(found.labels), found.source) == (steps, labels, "")
    assert [(one.kind, one.width, one.bidirectional) for one in found.layer_info] == [
        (found.cell, found.hidden, False)
    ] * found.layers


def test_observations_of_a_forecaster_have_names_and_units(models: Path) -> None:
    found = told(models / "prices" / "1")
    assert [(one.name, one.unit) for one in found.features][3:] == [("close", "USD"), ("volume", "shares")]
    assert found.outputs == 15


def name_of(value: object) -> str | None:
    """Return the id of a network, and pytest's own of anything else."""
    return value.name if isinstance(value, Net) else None


SEQUENCES = [
    (contract2.ACTIVITY, "steps", "label", LAST, 3, ["x g", "y g", "power W"]),
    (contract2.TAGS, "text", "label", EVERY, 3, []),
    (contract2.ODD, "steps", "numbers", EVERY, 2, [" "] * 4),
    (contract2.VANILLA, "steps", "embedding", LAST, 6, [" "] * 2),
    (contract2.VOICE, "steps", "label", EVERY, 1, [" "] * 4),
    (contract2.TOPICS, "tokens", "label", LAST, 4, []),
    (contract2.WORD_TAGS, "text", "label", EVERY, 3, []),
    (contract2.BOTH_WAYS, "steps", "label", EVERY, 3, ["x g", "y g", "power W"]),
]


@pytest.mark.parametrize(
    ("net", "input_kind", "output", "steps", "outputs", "features"), SEQUENCES, ids=name_of
)
def test_networks_of_any_use_say_what_they_take_and_give(
    tmp_path: Path, net: Net, input_kind: str, output: str, steps: int, outputs: int, features: list[str]
) -> None:
    found = told(contract2.export(net, tmp_path))
    assert (found.task, found.input, found.output) == ("sequences", input_kind, output)
    assert (found.output_steps, found.outputs) == (steps, outputs)
    assert [f"{one.name} {one.unit}" for one in found.features] == features
    assert found.kind == ("whole" if net.whole else "chunk")
    assert [(one.kind, one.width, one.bidirectional) for one in found.layer_info] == [
        (layer.kind, layer.width, bool(net.whole)) for layer in net.layers
    ]
    assert found.cell == "+".join(dict.fromkeys(layer.kind for layer in net.layers))


def test_classes_without_labels_are_probabilities_and_a_source_is_told_in_words(tmp_path: Path) -> None:
    def edit(document: dict[str, Any]) -> None:
        del document["sequences"]["output"]["labels"]
        document["provenance"]["source"] = {
            "file": "walk.onnx",
            "sha256": "0" * 64,
            "framework": "PyTorch",
            "exporter": "torch 2.13",
            "opset": 18,
        }

    found = told(contract2.export(contract2.ACTIVITY, tmp_path), edit)
    assert (found.output, list(found.labels)) == ("probabilities", [])
    assert found.source == "walk.onnx (PyTorch, torch 2.13, opset 18)"
