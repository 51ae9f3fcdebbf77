"""What a network's numbers mean: from what the user says, and from what can be found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from onnx import helper

from service.contract import spec
from tests.training.convert.made import LETTERS, POOLED, SERIES, WORDS, converted_of
from training.convert.converted import Converted
from training.convert.foreign import Refused
from training.convert.meaning.labels import labels_from
from training.convert.meaning.meaning import Said, meaning_of
from training.errors import TrainingError

TASK: Final = "text-classification"
INDEX = {"<OOV>": 1, "the": 2, "film": 3, "good": 4}


def with_last(converted: Converted, operator: str) -> Converted:
    """Return a conversion with one more operator behind its output, and examples that it gives."""
    graph = type(converted.graph)()
    graph.CopyFrom(converted.graph)
    for node in graph.graph.node:
        for index, name in enumerate(node.output):
            if name == spec.OUTPUT:
                node.output[index] = "before"
    graph.graph.node.append(helper.make_node(operator, ["before"], [spec.OUTPUT]))
    changed: Any = {
        "Softmax": lambda rows: np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True),
        "Sigmoid": lambda rows: 1 / (1 + np.exp(-rows)),
    }[operator]
    examples = tuple(replace(one, outputs=changed(one.outputs)) for one in converted.examples)
    return replace(converted, graph=graph, examples=examples)


def output_of(converted: Converted, **said: Any) -> tuple[spec.OutputSpec, tuple[str, ...]]:
    meaning = meaning_of(converted, Said(**said))
    assert isinstance(meaning.section, spec.SequencesSpec)
    return meaning.section.output, meaning.assumed


def test_nothing_said_gives_numbers_and_says_so() -> None:
    output, assumed = output_of(converted_of(SERIES))
    assert (output.kind, output.steps, output.labels) == ("numbers", "every", None)
    assert [one for one in assumed if "the outputs are numbers" in one]
    assert [one for one in assumed if "as they are; --features" in one]


def test_pooled_network_answers_once() -> None:
    output, _ = output_of(converted_of(POOLED))
    assert output.steps == "last"
    with pytest.raises(TrainingError, match="--steps: expected last"):
        output_of(converted_of(POOLED), steps="every")


def test_network_of_the_last_step_answers_once() -> None:
    assert output_of(converted_of(SERIES, every_step=False))[0].steps == "last"
    assert output_of(converted_of(SERIES, every_step=False), steps="every")[0].steps == "every"


def test_rows_that_sum_to_one_are_probabilities() -> None:
    output, assumed = output_of(with_last(converted_of(SERIES), "Softmax"), labels=["a", "b", "c"])
    assert (output.kind, output.exclusive, output.labels) == ("probabilities", True, ["a", "b", "c"])
    assert "rows sum to 1" in assumed[0]


def test_sigmoid_gives_probabilities_of_labels_for_themselves() -> None:
    output, assumed = output_of(with_last(converted_of(SERIES), "Sigmoid"), labels="a,b,c")
    assert (output.kind, output.exclusive) == ("probabilities", False)
    assert "the last operator is Sigmoid" in assumed[0]


def test_means_of_sigmoids_are_probabilities() -> None:
    made = with_last(converted_of(SERIES), "Sigmoid")
    graph = made.graph.graph
    graph.node[-1].output[0] = "each"
    graph.node.append(helper.make_node("ReduceMean", ["each"], [spec.OUTPUT], axes=[1], keepdims=1))
    assert output_of(made)[0].kind == "probabilities"


def test_one_sigmoid_chooses_between_two_labels() -> None:
    made = with_last(converted_of(replace(SERIES, outputs=1)), "Sigmoid")
    output, assumed = output_of(made, labels=["no", "yes"])
    assert "the one is that of 'yes'" in assumed[0]
    assert (output.kind, output.exclusive, output.is_binary) == ("probabilities", True, True)


def test_labels_without_probabilities_are_of_logits() -> None:
    output, assumed = output_of(converted_of(SERIES), labels=["a", "b", "c"])
    assert (output.kind, output.exclusive) == ("logits", True)
    assert "softmax" in assumed[0]
    assert output_of(converted_of(SERIES), labels="a,b,c", exclusive=False)[0].exclusive is False


def test_what_was_said_is_not_assumed() -> None:
    output, assumed = output_of(converted_of(SERIES), output="embedding", steps="last")
    assert (output.kind, output.steps) == ("embedding", "last")
    assert not [one for one in assumed if "outputs are" in one]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"labels": "a,b"}, "--labels: expected 3, one an output of the network, found 2"),
        ({"labels": "a,b,c", "output": "numbers"}, "expected beside logits or probabilities"),
        ({"labels": "a,a,c"}, "--labels: expected different labels, found 'a' twice"),
        ({"labels": "nothing.txt"}, "--labels: expected a file, or labels with commas"),
        ({"tokenizer": INDEX}, "--tokenizer: expected a network that takes tokens there"),
        ({"characters": "abc"}, "--characters: expected a network that takes tokens there"),
        (
            {"source_characters": "abc"},
            "--source-characters: expected a network that takes tokens there, found one without an encoder",
        ),
        ({"features": ["a"]}, "--features: expected 2 columns"),
        ({"target_features": ["a"]}, "--target-features: expected 3 columns"),
        (
            {"target_features": ["a", "b", "c"], "labels": "a,b,c"},
            "--target-features: expected beside numbers",
        ),
        (
            {"task": "text-generation"},
            "--task: expected sequences or forecasting for a network that takes features",
        ),
    ],
)
def test_said_that_does_not_fit_is_refused(said: Any, found: str) -> None:
    with pytest.raises(TrainingError) as refused:
        meaning_of(converted_of(SERIES), Said(**said))
    assert found in str(refused.value)


def test_features_and_targets_become_columns(tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    path.write_text(json.dumps({"names": ["load", "heat"], "mean": [1, 2], "scale": [3, 4]}))
    meaning = meaning_of(converted_of(SERIES), Said(features=path, target_features=["a", "b", "c"]))
    assert isinstance(meaning.section, spec.SequencesSpec)
    assert [one.name for one in meaning.section.columns or ()] == ["load", "heat"]
    assert [one.name for one in meaning.section.output.columns or ()] == ["a", "b", "c"]
    assert not [one for one in meaning.assumed if "--features gives" in one]


def test_characters_of_all_outputs_generate_text() -> None:
    meaning = meaning_of(converted_of(LETTERS), Said(characters="ab\n c"))
    assert meaning.task == "text-generation"
    assert isinstance(meaning.section, spec.Generation)
    assert (meaning.section.start_token, meaning.section.prepend_start) == (2, False)
    assert [one for one in meaning.assumed if "the task is text-generation" in one]
    assert [one for one in meaning.assumed if "starts with token 2" in one]


def test_sequences_can_be_asked_for_and_labels_ask_for_them() -> None:
    assert meaning_of(converted_of(LETTERS), Said(task="sequences", characters="ab\n c")).task == "sequences"
    tagged = meaning_of(converted_of(LETTERS), Said(characters="ab\n c", labels="1,2,3,4,5"))
    assert tagged.task == "sequences"


def test_probabilities_do_not_generate_text_by_themselves() -> None:
    made = with_last(converted_of(LETTERS), "Softmax")
    assert meaning_of(made, Said(characters="ab\n c")).task == "sequences"
    with pytest.raises(Refused, match="needs logits, found probabilities; export the network without"):
        meaning_of(made, Said(task="text-generation", characters="ab\n c"))


def test_tokens_of_generation_are_named_by_text() -> None:
    index = {"<start>": 1, "dog": 2, "runs": 3, "<end>": 4}
    said = Said(tokenizer=index, start_token="<start>", end_tokens=["<end>"], max_tokens=9)
    meaning = meaning_of(converted_of(LETTERS), said)
    assert isinstance(meaning.section, spec.Generation)
    section = meaning.section
    assert (section.start_token, section.prepend_start, section.end_tokens, section.max_tokens) == (
        1,
        True,
        [4],
        9,
    )
    found = meaning_of(converted_of(LETTERS), Said(tokenizer=index)).section
    assert isinstance(found, spec.Generation)
    assert (found.start_token, found.end_tokens) == (1, [4])
    with pytest.raises(
        TrainingError, match="--start-token: expected a token of the network or an id below 5"
    ):
        meaning_of(converted_of(LETTERS), Said(tokenizer=index, start_token="cat"))
    with pytest.raises(TrainingError, match="--end-tokens: expected"):
        meaning_of(converted_of(LETTERS), Said(tokenizer=index, end_tokens=["5"]))


def test_generation_that_a_network_cannot_do_is_refused() -> None:
    said = Said(task="text-generation", tokenizer=INDEX)
    with pytest.raises(Refused, match="cut in time"):
        meaning_of(converted_of(POOLED), said)
    with pytest.raises(Refused, match="an output for each of 10 tokens, found 2"):
        meaning_of(converted_of(WORDS), said)
    with pytest.raises(TrainingError, match="expected --characters or --tokenizer"):
        meaning_of(converted_of(LETTERS), Said(task="text-generation"))
    with pytest.raises(Refused, match="cannot have a fixed length"):
        meaning_of(
            converted_of(LETTERS),
            Said(task="text-generation", characters="ab\n c", window=spec.Window(to=9, side="left")),
        )


def test_text_classification_needs_tokenizer_and_labels() -> None:
    made = converted_of(WORDS)
    meaning = meaning_of(made, Said(task=TASK, tokenizer=INDEX, labels="good,bad"))
    assert isinstance(meaning.section, spec.Classification)
    assert meaning.section.labels == ["good", "bad"]
    assert set(meaning.files) == {"tokenizer.json"}
    with pytest.raises(Refused, match="needs --tokenizer; serve it as --task sequences"):
        meaning_of(made, Said(task=TASK, characters="abcdefghij", labels="a,b"))
    with pytest.raises(Refused, match="token for unknown text"):
        meaning_of(made, Said(task=TASK, tokenizer={"a": 1}, labels="a,b"))
    with pytest.raises(TrainingError, match="expected --labels"):
        meaning_of(made, Said(task=TASK, tokenizer=INDEX))
    with pytest.raises(Refused, match="needs logits"):
        meaning_of(with_last(made, "Softmax"), Said(task=TASK, tokenizer=INDEX, labels="a,b"))


def test_forecasting_takes_its_whole_section() -> None:
    section = {
        "columns": [
            {"name": "close", "unit": "USD", "transform": "log", "reference": "close", "scale": 0.02},
            {"name": "volume", "unit": "", "transform": "log", "reference": "volume", "scale": 0.3},
        ],
        "target": "close",
        "horizon": 1,
        "quantiles": [0.1, 0.5, 0.9],
        "scales": [0.02],
        "least_observations": 5,
    }
    meaning = meaning_of(converted_of(SERIES), Said(task="forecasting", features=section))
    assert isinstance(meaning.section, spec.ForecastSpec)
    with pytest.raises(Refused, match="3 outputs of 2 features, found 5 of 2"):
        meaning_of(converted_of(replace(SERIES, outputs=5)), Said(task="forecasting", features=section))
    with pytest.raises(Refused, match="needs --features with the whole section"):
        meaning_of(converted_of(SERIES), Said(task="forecasting"))
    with pytest.raises(Refused, match="forecasting needs --features with the whole section"):
        meaning_of(converted_of(SERIES), Said(task="forecasting", features={"mean": [0, 0], "scale": [1, 1]}))
    with pytest.raises(TrainingError, match="--features: horizon: expected at least 1"):
        meaning_of(converted_of(SERIES), Said(task="forecasting", features={**section, "horizon": 0}))


def test_window_that_the_network_has_is_said() -> None:
    made = replace(converted_of(SERIES), window=spec.Window(to=5, side="left"))
    meaning = meaning_of(made, Said())
    assert meaning.window == spec.Window(to=5, side="left")
    assert [one for one in meaning.assumed if "padded at the left with 0" in one]
    right = spec.Window(to=5, side="right", value=2.0)
    assert meaning_of(made, Said(window=right)).window == right
    with pytest.raises(TrainingError, match="--window: expected 5, the one length"):
        meaning_of(made, Said(window=spec.Window(to=6, side="left")))


@pytest.mark.parametrize(
    "text", ["a\nb\nc\n", '["a", "b", "c"]', '{"0": "a", "1": "b", "2": "c"}', '{"c": 2, "a": 0, "b": 1}']
)
def test_labels_are_read_from_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_text(text)
    assert labels_from(path, "--labels") == ["a", "b", "c"]
    assert labels_from(str(path), "--labels") == ["a", "b", "c"]
    assert labels_from("a, b,c", "--labels") == ["a", "b", "c"]


def test_labels_whose_places_have_gaps_are_refused() -> None:
    with pytest.raises(TrainingError, match="expected places 0 to 1, one a label, found \\[0, 2\\]"):
        labels_from({"a": 0, "b": 2}, "--labels")
