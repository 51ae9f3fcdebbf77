"""service.models.checks: versions that were damaged on purpose, with hashes that agree, so that only the
check in question can catch them.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer

from service.contract import spec
from service.errors import ModelRefused
from service.models.checks import check_preprocessing
from service.models.table import Entry, Status
from service.observability.metrics import Metrics
from tests import tiny
from tests.service.builders import GRAPH, INT8_GRAPH, edit_graph, load_repository, replace_file, spec_of
from training.export import quantize

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model a cell and a task. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    tiny.export_generator(folder, "lstm")
    tiny.export_generator(folder, "gru", "gru")
    tiny.export_generator(folder, "rnn", "rnn")
    tiny.export_generator(folder, "int8", int8=True)
    tiny.export_classifier(folder)
    tiny.export_forecaster(folder)
    return folder


@pytest.fixture
def version_of(exported: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return shutil.copytree(exported / name / "1", tmp_path / "repository" / name / "1")

    return copy


def admit(folder: Path, **changes: Any) -> Entry:
    """Return what the repository says of a version."""
    repository = load_repository(folder.parent.parent, **changes)
    repository.stop()
    return repository.table.get(folder.parent.name, 0)


def refusal_of(folder: Path, **changes: Any) -> str:
    entry = admit(folder, **changes)
    assert entry.status is Status.FAILED, "a bad version was admitted"
    return entry.message


def recurrent_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [
        node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM")
    ]


def swap_state_outputs(model: onnx.ModelProto) -> None:
    names = {"layer0.h.next": "layer0.c.next", "layer0.c.next": "layer0.h.next"}
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)


def swap_layers(model: onnx.ModelProto) -> None:
    names = {"layer0.h.next": "layer1.h.next", "layer1.h.next": "layer0.h.next"}
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = names.get(name, name)


def forget_lengths(model: onnx.ModelProto) -> None:
    """What an exporter leaves: recurrent nodes that run through the padding."""
    for node in recurrent_nodes(model):
        node.input[4] = ""


def forget_state(model: onnx.ModelProto) -> None:
    """Every chunk begins with zeros."""
    for node in recurrent_nodes(model):
        for index in range(5, min(7, len(node.input))):
            node.input[index] = ""


def pass_state_through(model: onnx.ModelProto) -> None:
    """The state after a chunk is the state before it."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name.endswith(spec.NEXT_SUFFIX):
                node.output[index] = f"unused.{name}"
    names = [one.name for one in model.graph.output if one.name.endswith(spec.NEXT_SUFFIX)]
    model.graph.node.extend(
        helper.make_node("Identity", [name.removesuffix(spec.NEXT_SUFFIX)], [name]) for name in names
    )


def reset_before(model: onnx.ModelProto) -> None:
    """The reset gate as ONNX has it by default, which is not PyTorch's GRU: what torch 2.10's exporter once
    wrote.
    """
    for node in recurrent_nodes(model):
        for attribute in node.attribute:
            if attribute.name == "linear_before_reset":
                attribute.i = 0


def nudge_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "head.bias":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.001), tensor.name)
            )


def spoil_weights(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == "head.bias":
            tensor.CopyFrom(
                numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), np.nan), tensor.name)
            )


def reset_dimension(name: str, axis: int, value: int | str) -> Change:
    def apply(model: onnx.ModelProto) -> None:
        [info] = [one for one in (*model.graph.input, *model.graph.output) if one.name == name]
        dimension = info.type.tensor_type.shape.dim[axis]
        if isinstance(value, int):
            dimension.dim_value = value
        else:
            dimension.dim_param = value

    return apply


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("temperature", TensorProto.FLOAT, [1]))


def add_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", [spec.OUTPUT], ["copy"]))
    model.graph.output.append(helper.make_tensor_value_info("copy", TensorProto.FLOAT, ["wanted", 10]))


def rename_output(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "logits" if name == spec.OUTPUT else name
    for info in model.graph.output:
        info.name = "logits" if info.name == spec.OUTPUT else info.name


def retype_input(name: str, given: int, wanted: int) -> Change:
    """Take an input as another type and cast it inside."""

    def apply(model: onnx.ModelProto) -> None:
        [info] = [one for one in model.graph.input if one.name == name]
        for node in model.graph.node:
            for index, used in enumerate(node.input):
                node.input[index] = f"{name}.cast" if used == name else used
        info.type.tensor_type.elem_type = given
        model.graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}.cast"], to=wanted))

    return apply


def widen_output(model: onnx.ModelProto) -> None:
    """Double precision at the edge."""
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = "output.single" if name == spec.OUTPUT else name
    [info] = [one for one in model.graph.output if one.name == spec.OUTPUT]
    info.type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node.append(helper.make_node("Cast", ["output.single"], [spec.OUTPUT], to=TensorProto.DOUBLE))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "moods", "prices"])
@pytest.mark.parametrize(("slots", "chunk"), [(64, 4), (1, 1), (3, 100)])
def test_good_version_is_admitted(
    version_of: Callable[[str], Path], name: str, slots: int, chunk: int
) -> None:
    entry = admit(version_of(name), slots=slots, chunk=chunk)
    assert entry.status is Status.READY, entry.message
    assert entry.served is not None
    assert entry.served.golden_max_error < 1e-5


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        pytest.param(
            "lstm",
            reset_dimension("input", 0, 3),
            "the input input, int64 [batch, time], found int64 [3, time], axis 0 fixed at 3: "
            "export the graph with that axis dynamic",
            id="baked batch",
        ),
        pytest.param(
            "lstm",
            reset_dimension("output", 0, 7),
            "the output output, float32 [wanted, 10], found float32 [7, 10], axis 0 fixed at 7",
            id="fixed number of outputs",
        ),
        pytest.param("lstm", add_input, "found temperature", id="extra input"),
        pytest.param("lstm", add_output, "found copy", id="extra output"),
        pytest.param(
            "lstm",
            rename_output,
            "expected the output output, float32 [wanted, 10], found none, and logits beside the others",
            id="renamed output",
        ),
        pytest.param(
            "lstm",
            retype_input("input", TensorProto.INT32, TensorProto.INT64),
            "found int32 [batch, time]",
            id="int32 token ids",
        ),
        pytest.param(
            "lstm",
            retype_input("lengths", TensorProto.INT64, TensorProto.INT32),
            "found int64 [batch]",
            id="int64 lengths",
        ),
        pytest.param(
            "lstm",
            retype_input("layer1.c", TensorProto.DOUBLE, TensorProto.FLOAT),
            "found float64 [batch, 24]",
            id="double state",
        ),
        pytest.param(
            "prices",
            retype_input("input", TensorProto.DOUBLE, TensorProto.FLOAT),
            "found float64 [batch, time, 5]",
            id="double features",
        ),
        pytest.param("lstm", widen_output, "found float64 [wanted, 10]", id="double output"),
    ],
)
def test_graph_with_another_signature_is_refused(
    version_of: Callable[[str], Path], name: str, change: Change, found: str
) -> None:
    folder = version_of(name)
    edit_graph(folder, change)
    message = refusal_of(folder)
    assert message.startswith("check 'signature' failed: expected")
    assert found in message


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param("lstm", swap_state_outputs, id="hidden and cell state swapped"),
        pytest.param("lstm", swap_layers, id="layers swapped"),
        pytest.param("lstm", forget_state, id="state ignored"),
        pytest.param("gru", forget_state, id="state ignored by a GRU"),
        pytest.param("lstm", pass_state_through, id="state not advanced"),
        pytest.param("lstm", forget_lengths, id="lengths ignored"),
        pytest.param("gru", forget_lengths, id="lengths ignored by a GRU"),
        pytest.param("gru", reset_before, id="linear_before_reset=0"),
        pytest.param("lstm", nudge_weights, id="weights off by 0.001"),
        pytest.param("lstm", spoil_weights, id="NaN weights"),
    ],
)
@pytest.mark.parametrize("chunk", [4, 64])
def test_graph_that_computes_something_else_is_refused_by_the_golden_examples(
    version_of: Callable[[str], Path], name: str, change: Change, chunk: int
) -> None:
    """Whatever the chunk: a row of a longer input, or a generated one, would meet the fault later,
    silently.
    """
    folder = version_of(name)
    edit_graph(folder, change)
    assert refusal_of(folder, chunk=chunk).startswith("check 'golden' failed: expected outputs of example")


@pytest.mark.parametrize(("slots", "chunk"), [(64, 4), (1, 1), (3, 100)])
def test_int8_variant_is_admitted_within_its_own_tolerance(
    version_of: Callable[[str], Path], slots: int, chunk: int
) -> None:
    folder = version_of("int8")
    entry = admit(folder, variant="int8", slots=slots, chunk=chunk)
    assert entry.status is Status.READY, entry.message
    assert entry.served is not None
    assert (entry.served.variant, entry.served.batch_invariant) == ("int8", False)
    assert 1e-4 < entry.served.golden_max_error <= spec_of(folder)["variants"]["int8"]["tolerance"]


def test_int8_variant_of_wide_layers_gives_the_same_bits_in_every_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "WIDE", 24)
    folder, _ = tiny.export_generator(tmp_path, int8=True)
    entry = admit(folder, variant="int8")
    assert entry.served is not None, entry.message
    assert (entry.served.variant, entry.served.batch_invariant) == ("int8", True)


def test_model_without_int8_is_served_as_fp32(version_of: Callable[[str], Path]) -> None:
    entry = admit(version_of("gru"), variant="int8")
    assert entry.served is not None
    assert entry.served.variant == "fp32"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(swap_state_outputs, id="hidden and cell state swapped"),
        pytest.param(swap_layers, id="layers swapped"),
        pytest.param(forget_state, id="state ignored"),
        pytest.param(pass_state_through, id="state not advanced"),
        pytest.param(forget_lengths, id="lengths ignored"),
        pytest.param(spoil_weights, id="NaN weights"),
    ],
)
def test_int8_graph_that_computes_something_else_is_refused_by_the_golden_examples(
    version_of: Callable[[str], Path], change: Change
) -> None:
    """Although its tolerance is much wider than that of fp32."""
    folder = version_of("int8")
    edit_graph(folder, change, INT8_GRAPH)
    assert refusal_of(folder, variant="int8").startswith("check 'golden' failed: expected outputs of example")


def test_wrong_golden_output_is_refused(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    golden = spec_of(folder)["golden"]
    golden[1]["outputs"][2][3] += 0.01
    spec_of(folder, golden=golden)
    message = refusal_of(folder)
    assert message == (
        "check 'golden' failed: expected outputs of example 1, "
        "step 4, alone, within 0.0001 of the golden ones, found 0.01 off"
    )


def test_refusal_counts_by_its_check(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    edit_graph(folder, nudge_weights)
    metrics = Metrics(CollectorRegistry())
    load_repository(folder.parent.parent, metrics).stop()
    assert metrics.registry.get_sample_value("seqserve_model_load_failures_total", {"reason": "golden"}) == 1


def test_truncated_graph_whose_hash_agrees_is_refused(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    data = (folder / GRAPH).read_bytes()
    replace_file(folder, GRAPH, data[: len(data) // 2])
    assert refusal_of(folder).startswith("check 'graph' failed: expected a graph that onnxruntime loads")


def test_file_that_is_no_graph_is_refused(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    replace_file(folder, GRAPH, b"")
    assert refusal_of(folder).startswith("check 'graph' failed")


def test_changed_graph_is_refused_by_its_hash(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    (folder / GRAPH).write_bytes((folder / GRAPH).read_bytes() + b"\0")
    assert refusal_of(folder).startswith(f"sha256 of {GRAPH}: expected")


def test_graph_of_a_smaller_vocabulary_is_refused(version_of: Callable[[str], Path]) -> None:
    """The spec says ten tokens; the embedding has eight, so that ids 8 and 9 would fail at run time."""

    def shrink(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "embedding":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:8], tensor.name))

    folder = version_of("lstm")
    edit_graph(folder, shrink)
    assert refusal_of(folder).startswith("check 'golden' failed")


def test_missing_tokenizer_is_refused(version_of: Callable[[str], Path]) -> None:
    folder = version_of("moods")
    (folder / "tokenizer.json").unlink()
    assert refusal_of(folder).endswith("found no such file")


def test_tokenizer_of_another_size_is_refused(version_of: Callable[[str], Path]) -> None:
    folder = version_of("moods")
    text = (
        (folder / "tokenizer.json")
        .read_text()
        .replace('"very":', '"very": 7, "more":', 1)
        .replace('7, "more":7', '7, "more": 8', 1)
    )
    replace_file(folder, "tokenizer.json", text.encode())
    assert (
        refusal_of(folder)
        == "check 'tokenizer' failed: expected 8 tokens, as the network has, found 9 in tokenizer.json"
    )


def test_provider_that_this_build_lacks_is_refused(version_of: Callable[[str], Path]) -> None:
    message = refusal_of(version_of("lstm"), provider="cuda")
    assert message.startswith("check 'provider' failed: expected CUDAExecutionProvider, found only")


@pytest.mark.parametrize(("name", "variant"), [("lstm", "fp32"), ("int8", "int8")])
def test_admission_and_warm_up_print_nothing(
    version_of: Callable[[str], Path], capfd: pytest.CaptureFixture[str], name: str, variant: str
) -> None:
    """onnxruntime writes its warnings to stderr by itself; none may come while a good version is checked."""
    assert admit(version_of(name), variant=variant).status is Status.READY
    assert "onnxruntime" not in "".join(capfd.readouterr())


TYPED = [
    pytest.param("lstm", "generation", "b\u00ad", [3], {"\u00ad": ""}, None, id="characters"),
    pytest.param("lstm", "generation", "\u00ad", [1], {"\u00ad": "c"}, "found others", id="other characters"),
    pytest.param("lstm", "generation", "\u00ad", [1], {}, "found text: character", id="unknown character"),
    pytest.param("moods", "classification", "fi\u00adlm", [3], {"\u00ad": ""}, None, id="words"),
    pytest.param("moods", "classification", "fi\u00adlm", [3], {}, "found others", id="unknown word"),
    pytest.param(
        "moods", "classification", "\u00ad", [2], {"\u00ad": ""}, "found texts[0]: expected", id="no word"
    ),
]


@pytest.mark.parametrize(("name", "section", "text", "tokens", "characters", "found"), TYPED)
def test_text_of_a_golden_example_must_give_its_tokens(
    exported: Path,
    name: str,
    section: str,
    text: str,
    tokens: list[int],
    characters: dict[str, str],
    found: str | None,
) -> None:
    """What training reads as these tokens, the service must read as them, too."""
    model, _, files = spec.read_version(exported / name / "1")
    described = json.loads(model.model_dump_json(exclude_none=True))
    described[section]["text"]["normalization"] = {"characters": characters}
    described["golden"] = [described["golden"][0] | {"tokens": tokens, "text": text}]
    changed = spec.parse_spec(json.dumps(described))
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode()) if name == "moods" else None
    if found is None:
        check_preprocessing(changed, tokenizer)
        return
    with pytest.raises(ModelRefused, match=re.escape(found)):
        check_preprocessing(changed, tokenizer)


def test_admission_checks_the_texts_of_golden_examples(version_of: Callable[[str], Path]) -> None:
    folder = version_of("lstm")
    golden = json.loads((folder / spec.SPEC_FILE).read_text())["golden"]
    golden[0]["text"] = tiny.VOCABULARY[1]
    spec_of(folder, golden=golden)
    assert refusal_of(folder).startswith("check 'preprocessing' failed: expected the tokens of example 0")
