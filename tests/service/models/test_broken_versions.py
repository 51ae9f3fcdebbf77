"""Versions that are broken in one way each are refused by the check that is there for it.

Every network is right before; hashes agree again after the change, and where a graph is damaged in a way that
its outputs alone do not show, the golden examples have the outputs of the damaged graph.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from service.errors import ModelRefused
from service.models.checklist import NAMES, Passed
from service.models.choices import Choices
from service.models.preparing import Preparation
from tests import contract2
from tests.contract2 import (
    ACTIVITY,
    BEGUN,
    BOTH_WAYS,
    EQUAL,
    GRAPH,
    INIT_GRAPH,
    ODD,
    POOLED,
    TAGS,
    TOKENIZER,
    WINDOWED,
    WORD_TAGS,
)
from tests.contract2_graphs import GATES, Net
from tests.service.builders import edit_graph, replace_file, spec_of
from tests.service.models.test_checks_contract2 import (
    fix_axis,
    forget_lengths,
    keep_golden,
    mix_rows,
    pass_through,
    rename,
    replace_node,
    reverse,
    swap,
)
from tests.service.models.test_checks_whole import keep_golden as keep_golden_whole
from tests.service.models.test_checks_whole import weigh_by_time

Break = Callable[[Path], object]
NETS = (ACTIVITY, TAGS, ODD, WINDOWED, WORD_TAGS, BEGUN, BOTH_WAYS, POOLED, EQUAL)
CHOICES = Choices("cpu", "fp32", 1, None, "thread", slots=64, chunk=4, chunk_rows=64)
ROWS = [[0.5, 0.1, 2.0], [1.5, -0.2, 3.0], [0.0, 0.3, 10.0]]  # as a caller of the activities sends them


@dataclass(frozen=True)
class Broken:
    """One way to break a version: the network, the check that refuses it, and what is done to the folder."""

    net: Net
    check: str
    by: Break


# Changes of graphs.


def graph(change: Callable[[onnx.ModelProto], None], name: str = GRAPH) -> Break:
    return lambda folder: edit_graph(folder, change, name)


def with_own_golden(change: Callable[[onnx.ModelProto], None]) -> Break:
    """Change a graph, and give the golden examples the outputs that it then has for them, alone."""

    def by(folder: Path) -> None:
        edit_graph(folder, change)
        is_whole = spec_of(folder)["kind"] == "whole"
        (keep_golden_whole if is_whole else keep_golden)(folder)

    return by


def weights(
    part: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], name: str = GRAPH
) -> Break:
    """Change the weights whose names end so."""

    def edit(model: onnx.ModelProto) -> None:
        found = [one for one in model.graph.initializer if one.name.endswith(part)]
        assert found
        for one in found:
            value = np.ascontiguousarray(change(numpy_helper.to_array(one).copy()), np.float32)
            one.CopyFrom(numpy_helper.from_array(value, one.name))

    return graph(edit, name)


def swap_gates(kind: str) -> Callable[[onnx.ModelProto], None]:
    """Let the first two gates of all recurrent nodes of a kind take each other's weights."""

    def edit(model: onnx.ModelProto) -> None:
        by_name = {one.name: one for one in model.graph.initializer}
        nodes = [one for one in model.graph.node if one.op_type == kind.upper()]
        assert nodes
        for node in nodes:
            for name in node.input[1:3]:
                value = numpy_helper.to_array(by_name[name])
                first, second, *others = np.split(value, GATES[kind], axis=1)
                mixed = np.concatenate([second, first, *others], axis=1)
                by_name[name].CopyFrom(numpy_helper.from_array(mixed, name))

    return edit


def attribute(operator: str, name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == operator:
                kept = [one for one in node.attribute if one.name != name]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def fail_above(rows: int) -> Callable[[onnx.ModelProto], None]:
    """Let runs of more rows look up what is not there."""

    def edit(model: onnx.ModelProto) -> None:
        rename("output", "output.own")(model)
        [info] = [one for one in model.graph.output if one.name == "output.own"]
        info.name = "output"
        zeros = numpy_helper.from_array(np.zeros(rows + 1, np.float32), "few")
        model.graph.initializer.append(zeros)
        model.graph.node.extend(
            [
                helper.make_node("Shape", ["lengths"], ["rows"]),
                helper.make_node("Gather", ["few", "rows"], ["none"]),
                helper.make_node("Add", ["output.own", "none"], ["output"]),
            ]
        )

    return edit


def custom_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    rename("output", "output.own")(model)
    [info] = [one for one in model.graph.output if one.name == "output.own"]
    info.name = "output"
    model.graph.node.append(helper.make_node("Fancy", ["output.own"], ["output"], domain="com.example"))


def external(model: onnx.ModelProto) -> None:
    """Let a weight be in a file beside the graph."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def newest_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def without_recurrence(model: onnx.ModelProto) -> None:
    """Put a network that forgets in the place of the recurrent one."""
    [old] = [one for one in model.graph.node if one.op_type == "GRU"]
    model.graph.node.remove(old)
    width = next(one for one in old.attribute if one.name == "hidden_size").i
    axes = numpy_helper.from_array(np.array([1], np.int64), "second")
    weight = numpy_helper.from_array(np.ones((len(contract2.VOCABULARY), width), np.float32), "table")
    model.graph.initializer.extend([axes, weight])
    before = next(one.input[0] for one in model.graph.node if one.op_type == "Unsqueeze")
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["input"], ["turned"], perm=[1, 0]),
            helper.make_node("Gather", ["table", "turned"], ["every"]),
            helper.make_node("Unsqueeze", ["every", "second"], [old.output[0]]),
            helper.make_node("Unsqueeze", [before, "axis.0"], [old.output[1]]),
        ]
    )


# Changes of model.json and of files.


def described(change: Callable[[dict[str, Any]], object]) -> Break:
    def by(folder: Path) -> None:
        document = spec_of(folder)
        change(document)
        spec_of(folder, **document)

    return by


def set_at(value: Any, *path: str | int) -> Break:
    """Set what stands at a path of model.json."""

    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return described(change)


def edited(name: str) -> Break:
    """Change a file without its hash."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b" ")


def with_values(change: Callable[[dict[str, Any]], object]) -> Break:
    """Give example 0 values, and the features that its columns give of them; then change something."""

    def edit(document: dict[str, Any]) -> None:
        columns, golden = document["sequences"]["columns"], document["golden"][0]
        golden["values"] = [list(row) for row in ROWS]
        golden["features"] = [[feature(*pair) for pair in zip(row, columns, strict=True)] for row in ROWS]
        golden["steps"], golden["outputs"] = golden["steps"][:1], golden["outputs"][:1]
        change(document)

    return described(edit)


def feature(value: float, column: dict[str, Any]) -> float:
    transformed = np.log(value) if column.get("transform") == "log" else value
    return float((transformed - column.get("mean", 0.0)) / column.get("scale", 1.0))


def with_text(text: str, tokens: list[int], change: Break = lambda _: None) -> Break:
    """Give example 0 a text and its tokens, and outputs of no matter; then change something."""

    def edit(document: dict[str, Any]) -> None:
        golden = document["golden"][0]
        golden |= {"text": text, "tokens": tokens, "steps": [0], "outputs": golden["outputs"][:1]}

    def by(folder: Path) -> None:
        described(edit)(folder)
        change(folder)

    return by


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Break:
    def by(folder: Path) -> None:
        document = json.loads((folder / TOKENIZER).read_text())
        change(document)
        replace_file(folder, TOKENIZER, json.dumps(document).encode())

    return by


def swap_words(document: dict[str, Any]) -> None:
    words = document["model"]["vocab"]
    words["dog"], words["cat"] = words["cat"], words["dog"]


LETTERS = contract2.VOCABULARY.index
PADDED = [1] * 5 + [LETTERS(one) for one in "abc"]
GATE, RECURRENT, HEAD = ".W", ".R", "head.weight"
BROKEN = {
    # model.json and the hashes.
    "hash of an edited graph": Broken(ACTIVITY, "spec", edited(GRAPH)),
    "hash of an edited tokenizer": Broken(WORD_TAGS, "spec", edited(TOKENIZER)),
    "label too many": Broken(ACTIVITY, "spec", set_at(list("abcd"), "sequences", "output", "labels")),
    "window shorter than the examples": Broken(WINDOWED, "spec", set_at(7, "window", "to")),
    "tolerance that hides anything": Broken(ACTIVITY, "spec", set_at(9.0, "variants", "fp32", "tolerance")),
    "golden output that is no number": Broken(
        ACTIVITY, "spec", set_at(float("nan"), "golden", 0, "outputs", 0, 0)
    ),
    "token beyond the vocabulary": Broken(TAGS, "spec", set_at(99, "golden", 0, "tokens", 0)),
    "name of another folder": Broken(ACTIVITY, "spec", set_at("other", "name")),
    # Text and values.
    "tokenizer without a word": Broken(
        WORD_TAGS, "tokenizer", tokenizer(lambda found: found["model"]["vocab"].pop("fast"))
    ),
    "tokenizer that pads": Broken(
        WORD_TAGS,
        "tokenizer",
        tokenizer(
            lambda found: found.update(
                padding={
                    "strategy": {"Fixed": 9},
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "[UNK]",
                }
            )
        ),
    ),
    "words swapped": Broken(
        WORD_TAGS, "preprocessing", with_text("the dog runs", [1, 2, 5], tokenizer(swap_words))
    ),
    "scale one percent off": Broken(
        ACTIVITY, "preprocessing", with_values(lambda one: set_scale(one["sequences"]["columns"], 1.01))
    ),
    "columns swapped": Broken(
        ACTIVITY, "preprocessing", with_values(lambda one: one["sequences"]["columns"].reverse())
    ),
    "window at the other side": Broken(
        WINDOWED, "preprocessing", with_text("abc", PADDED, set_at("right", "window", "side"))
    ),
    "window of another padding": Broken(
        WINDOWED, "preprocessing", with_text("abc", PADDED, set_at(0, "window", "value"))
    ),
    "characters in another order": Broken(
        TAGS,
        "preprocessing",
        with_text("a", [LETTERS("a")], set_at(contract2.VOCABULARY[::-1], "sequences", "text", "vocabulary")),
    ),
    # What onnxruntime loads.
    "file that is no graph": Broken(
        ACTIVITY, "graph", lambda folder: replace_file(folder, GRAPH, b"nothing")
    ),
    "custom operator": Broken(ACTIVITY, "graph", graph(custom_operator)),
    "external data": Broken(ACTIVITY, "graph", graph(external)),
    "opset of the future": Broken(ACTIVITY, "graph", graph(newest_opset)),
    "init graph that is none": Broken(
        BEGUN, "graph", lambda folder: replace_file(folder, INIT_GRAPH, b"nothing")
    ),
    "no recurrent node": Broken(TAGS, "placement", graph(without_recurrence)),
    # Tensors.
    "batch fixed": Broken(ACTIVITY, "signature", graph(fix_axis("input", 0, 1))),
    "time fixed": Broken(BOTH_WAYS, "signature", graph(fix_axis("input", 1, 20))),
    "state of another width": Broken(ACTIVITY, "signature", set_at(15, "state", 0, "size")),
    "lengths where none are taken": Broken(POOLED, "signature", set_at("none", "padding")),
    "no lengths where some are": Broken(EQUAL, "signature", set_at("lengths", "padding")),
    "init graph of another state": Broken(
        BEGUN, "signature", graph(rename("layer0.h", "thought"), INIT_GRAPH)
    ),
    # First states.
    "first states that are not finite": Broken(
        BEGUN,
        "init",
        graph(replace_node("Tanh", helper.make_node("Log", ["speaker.total"], ["layer0.h"])), INIT_GRAPH),
    ),
    "first states that are not numbers": Broken(
        BEGUN, "init", weights("bias", lambda value: value * np.float32("nan"), INIT_GRAPH)
    ),
    # Outputs: right graphs with other weights or attributes.
    "lstm gates in another order": Broken(ACTIVITY, "golden", graph(swap_gates("lstm"))),
    "gru gates in another order": Broken(TAGS, "golden", graph(swap_gates("gru"))),
    "gru gates in another order, whole": Broken(POOLED, "golden", graph(swap_gates("gru"))),
    "gru reset of the other kind": Broken(TAGS, "golden", graph(attribute("GRU", "linear_before_reset", 0))),
    "activation of another kind": Broken(
        ACTIVITY, "golden", graph(attribute("LSTM", "activations", ["Sigmoid", "Softsign", "Tanh"]))
    ),
    "input weights one percent off": Broken(ACTIVITY, "golden", weights(GATE, lambda value: value * 1.01)),
    "recurrent weights one percent off": Broken(
        ODD, "golden", weights(RECURRENT, lambda value: value * 1.01)
    ),
    "head one percent off": Broken(BOTH_WAYS, "golden", weights(HEAD, lambda value: value * 1.01)),
    "init graph one percent off": Broken(
        BEGUN, "golden", weights("image.weight", lambda value: value * 1.01, INIT_GRAPH)
    ),
    "outputs in another order": Broken(ACTIVITY, "golden", weights(HEAD, lambda value: value[::-1])),
    "directions swapped": Broken(BOTH_WAYS, "golden", weights(GATE, lambda value: value[::-1])),
    "weights that are not numbers": Broken(
        ACTIVITY, "golden", weights(GATE, lambda value: value * np.float32("nan"))
    ),
    "head that is not a number": Broken(
        ACTIVITY, "golden", weights(HEAD, lambda value: value * np.float32("nan"))
    ),
    "states that grow beyond all numbers": Broken(
        POOLED, "golden", weights(HEAD, lambda value: np.full_like(value, 3e38))
    ),
    "start of another state": Broken(ODD, "golden", set_at(0.0, "state", 0, "start")),
    "golden outputs of another example": Broken(
        ACTIVITY,
        "golden",
        described(lambda one: one["golden"][1].update(outputs=one["golden"][2]["outputs"])),
    ),
    # Graphs that are right alone and whole, as their own golden outputs are.
    "state dropped": Broken(ODD, "golden", with_own_golden(pass_through("memory/c:0", "memory/c:0.next"))),
    "states swapped": Broken(ODD, "golden", with_own_golden(swap("memory/h:0.next", "memory/c:0.next"))),
    "direction flipped": Broken(ACTIVITY, "golden", with_own_golden(reverse)),
    "lengths ignored": Broken(ACTIVITY, "golden", with_own_golden(forget_lengths)),
    "lengths ignored, whole": Broken(POOLED, "golden", with_own_golden(forget_lengths)),
    "rows that depend on each other": Broken(ACTIVITY, "golden", with_own_golden(mix_rows)),
    "mean over padding": Broken(POOLED, "golden", with_own_golden(weigh_by_time)),
    # Ticks.
    "graph that fails with many rows": Broken(ACTIVITY, "warm-up", graph(fail_above(40))),
}


def set_scale(columns: list[dict[str, Any]], factor: float) -> None:
    columns[0]["scale"] *= factor


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version a network. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for net in NETS:
        contract2.export(net, folder)
    return folder


@pytest.fixture
def version_of(exported: Path, tmp_path: Path) -> Callable[[Net], Path]:
    def copy(net: Net) -> Path:
        return shutil.copytree(exported / net.name / "1", tmp_path / net.name / "1")

    return copy


def examined(folder: Path) -> tuple[str, list[str]]:
    """Return the check that refuses a version, empty for none, and those that it has passed, in order."""
    told: list[Passed] = []
    try:
        Preparation(CHOICES).run(folder, tell=told.append)
    except spec.SpecError:
        failed = "spec"
    except ModelRefused as refused:
        failed = refused.check
    else:
        failed = ""
    return failed, [one.check for one in told]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_version_is_refused_by_the_check_for_it(
    version_of: Callable[[Net], Path], broken: Broken
) -> None:
    folder = version_of(broken.net)
    broken.by(folder)
    failed, passed = examined(folder)
    assert failed == broken.check
    # The checks run in the order in which they are listed, so that those before it are known to be passed.
    assert passed == list(NAMES[: len(passed)])
    assert len(passed) <= NAMES.index(failed)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_version_that_is_not_broken_passes_every_check_in_order(exported: Path, net: Net) -> None:
    assert examined(exported / net.name / "1") == ("", list(NAMES[: NAMES.index("trial")]))


def test_values_and_texts_of_examples_are_right_before_they_are_broken(
    version_of: Callable[[Net], Path],
) -> None:
    """Else the versions above would be refused for the examples that they were given."""
    for net, by in (
        (ACTIVITY, with_values(lambda _: None)),
        (WORD_TAGS, with_text("the dog runs", [1, 2, 5])),
        (WINDOWED, with_text("abc", PADDED)),
    ):
        folder = version_of(net)
        by(folder)
        assert "preprocessing" in examined(folder)[1]


def test_labels_in_another_order_are_no_check_of_a_version_alone(version_of: Callable[[Net], Path]) -> None:
    """A label is the word for an output: only a version beside it has the words that were right."""
    folder = version_of(ACTIVITY)
    described(lambda one: one["sequences"]["output"]["labels"].reverse())(folder)
    assert examined(folder)[0] == ""


def test_every_check_that_a_broken_folder_can_fail_is_in_the_table() -> None:
    """Providers and limits of a process are not of a folder: test_runtime.py and test_trial.py have those.

    A graph that fails for random sequences alone fails for golden ones too, unless those are few:
    test_checks_contract2.py has tokens without an embedding. Generation graphs are in
    test_generation_check.py.
    """
    elsewhere = {"provider", "generation", "invariance", "trial"}
    assert {one.check for one in BROKEN.values()} == set(NAMES) - elsewhere
