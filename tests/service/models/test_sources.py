"""Admission of models that begin with a source: the encoder's graph, golden examples, longest source."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from service.contract import spec
from service.errors import ModelRefused
from service.models.choices import Choices
from service.models.preparing import Preparation, Prepared
from service.models.run_memory import max_source_steps_of
from service.models.trial import Trial
from service.runtime import InitRuntime
from tests import encoder_decoder
from tests.service.builders import edit_graph, replace_file, settings_of
from training.export.sequences.export import INIT_FILE

CHOICES = Choices("cpu", "fp32", 1, None, "thread", slots=8, chunk=4, chunk_rows=8)
Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version of each. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for name in encoder_decoder.PACKAGES:
        encoder_decoder.export(name, folder)
    return folder


@pytest.fixture
def version_of(exported: Path, tmp_path: Path) -> Copy:
    return lambda name: shutil.copytree(exported / name / "1", tmp_path / name / "1")


def prepared(folder: Path) -> Prepared:
    return Preparation(CHOICES).run(folder)


def refusal_of(folder: Path) -> str:
    with pytest.raises(ModelRefused) as refused:
        prepared(folder)
    return str(refused.value)


def edit_spec(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change model.json."""
    path = folder / spec.SPEC_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("name", encoder_decoder.PACKAGES)
def test_encoder_and_decoder_are_admitted_and_equal_pytorch(exported: Path, name: str) -> None:
    found = prepared(exported / name / "1")
    assert found.golden_max_error < 2e-6
    assert found.batch_invariant
    assert (found.source_tokenizer is not None) is (name == "worded")


def test_trial_in_a_process_of_its_own_admits_an_encoder(exported: Path) -> None:
    trial = Trial(settings_of(exported))
    try:
        assert trial.run(exported / "digits" / "1").is_batch_invariant
    finally:
        trial.close()


def rename_source(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.input[:] = ["question" if name == spec.SOURCE else name for name in node.input]
    model.graph.input[0].name = "question"


def fix_time(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 20


def add_lengths(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"]))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (rename_source, "expected the input of the init graph source, int64 [1, time], found none, and"),
        (fix_time, "found int64 [batch, 20], axis 1 fixed at 20: export the graph with that axis dynamic"),
        (add_lengths, "expected no input of the init graph beside source, found lengths"),
    ],
)
def test_encoder_of_another_signature_is_refused_by_its_tensor(
    version_of: Copy, change: Callable[[onnx.ModelProto], None], found: str
) -> None:
    folder = version_of("digits")
    edit_graph(folder, change, INIT_FILE)
    assert found in refusal_of(folder)


def reverse_encoder(model: onnx.ModelProto) -> None:
    """Swap the directions of the second layer."""
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    for name in node.input[1:4]:
        weight = next(one for one in model.graph.initializer if one.name == name)
        array = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(array[::-1]), name))


def test_encoder_with_swapped_directions_is_refused_by_the_golden_examples(version_of: Copy) -> None:
    folder = version_of("digits")
    edit_graph(folder, reverse_encoder, INIT_FILE)
    assert "check 'golden' failed" in refusal_of(folder)


def test_source_text_that_gives_other_tokens_is_refused(version_of: Copy) -> None:
    folder = version_of("digits")
    edit_spec(folder, lambda document: document["golden"][1]["source"].update(text="0124"))
    assert "the tokens of the source of example 1 for its text, found others, 4 in all" in refusal_of(folder)


def test_source_text_with_an_unknown_character_is_refused(version_of: Copy) -> None:
    folder = version_of("digits")
    edit_spec(folder, lambda document: document["golden"][0]["source"].update(text="x"))
    assert "tokens of the text of the source of example 0" in refusal_of(folder)


def test_source_values_that_give_other_features_are_refused(version_of: Copy) -> None:
    folder = version_of("moved")
    edit_spec(folder, lambda document: document["init"]["source"]["columns"][0].update(scale=2.5))
    assert "the features of the source of example 0 for its values" in refusal_of(folder)


def test_tokenizer_of_a_source_may_end_texts_but_add_no_more_than_a_few_tokens(version_of: Copy) -> None:
    folder = version_of("worded")
    tokenizer = Tokenizer.from_str((folder / encoder_decoder.TOKENIZER).read_text())
    tokenizer.post_processor = TemplateProcessing(single="$A" + " </s>" * 20, special_tokens=[("</s>", 1)])
    replace_file(folder, encoder_decoder.TOKENIZER, tokenizer.to_str().encode())
    assert "expected a post_processor that adds at most 16 tokens, found 20" in refusal_of(folder)


def limit_steps(model: onnx.ModelProto) -> None:
    """Let the encoder fail for a source of more than 20 steps."""
    graph = model.graph
    ones = onnx.numpy_helper.from_array(np.zeros(20, np.int64), "few")
    graph.initializer.append(ones)
    graph.node.insert(0, helper.make_node("Shape", ["source"], ["shape.source"]))
    graph.node.insert(1, helper.make_node("ReduceProd", ["shape.source"], ["steps"], keepdims=0))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1, np.int64), "one"))
    graph.node.insert(2, helper.make_node("Sub", ["steps", "one"], ["last"]))
    graph.node.insert(3, helper.make_node("Gather", ["few", "last"], ["zero"]))
    for node in graph.node[4:]:
        if "source" in node.input:
            node.input[:] = ["source.checked" if name == "source" else name for name in node.input]
    graph.node.insert(4, helper.make_node("Add", ["source", "zero"], ["source.checked"]))


def test_encoder_that_cannot_run_its_longest_source_is_refused(version_of: Copy) -> None:
    """The golden sources have 20 steps at most, and max_steps is 40."""
    folder = version_of("digits")
    edit_graph(folder, limit_steps, INIT_FILE)
    assert "expected finite first states for a source of 40 time steps, max_steps" in refusal_of(folder)
    edit_spec(folder, lambda document: document["init"]["source"].update(max_steps=20))
    assert prepared(folder).golden_max_error < 2e-6


def test_memory_bounds_a_source_by_the_encoder_s_layers(exported: Path) -> None:
    model, _ = spec.read_document(exported / "digits" / "1")
    step_bytes = 4 * (2 + 2 * 5 * 10 + 2 * 6 * 7)  # a token id, a GRU and an LSTM of both directions
    assert max_source_steps_of(model, 16 * 30 * step_bytes) == 30
    assert max_source_steps_of(model, 1 << 40) == encoder_decoder.MAX_STEPS
    assert max_source_steps_of(model, 0) == 1


def test_memory_bounds_a_source_of_unlisted_layers_by_the_states(exported: Path) -> None:
    model, _ = spec.read_document(exported / "digits" / "1")
    document = json.loads(model.model_dump_json(exclude_none=True))
    del document["init"]["source"]["layers"]
    step_bytes = 4 * (2 + 2 * 6 * (12 + 12 + 9))
    assert max_source_steps_of(spec.parse_spec(json.dumps(document)), 16 * 30 * step_bytes) == 30


def test_first_states_of_a_source_have_the_same_bits_in_every_run(exported: Path) -> None:
    _, _, files = spec.read_version(exported / "digits" / "1")
    init = InitRuntime(files[INIT_FILE], "cpu", 1)
    source = np.array([[3, 1, 4, 1, 5, 9]])
    first, second = (init.run({spec.SOURCE: source}) for _ in range(2))
    other = init.run({spec.SOURCE: source[:, ::-1].copy()})
    assert first.keys() == {"lstm0.h", "lstm0.c", "gru1.h"}
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
