"""service.models.checks on models of contract 2: what is admitted, and the sentence that refuses what is not.

Each version was damaged on purpose, with hashes that agree.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from service.errors import ModelRefused
from service.models.checks import check_graphs, check_preprocessing, runs_of
from service.models.choices import Choices
from service.models.preparing import Preparation, Prepared
from service.models.samples import Samples
from service.models.trial import Trial
from service.runtime import InitRuntime, Runtime
from tests import contract2
from tests.contract2 import ACTIVITY, BEGUN, CHUNK_NETS, GRAPH, INIT_GRAPH, ODD, WINDOWED
from tests.contract2_graphs import Net
from tests.service.builders import edit_graph, replace_file, settings_of, spec_of

Change = Callable[[onnx.ModelProto], None]
CHOICES = Choices("cpu", "fp32", 1, None, "thread", slots=8, chunk=4, chunk_rows=8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version a network. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for net in CHUNK_NETS:
        contract2.export(net, folder)
    return folder


@pytest.fixture
def version_of(exported: Path, tmp_path: Path) -> Callable[[Net], Path]:
    def copy(net: Net) -> Path:
        return shutil.copytree(exported / net.name / "1", tmp_path / net.name / "1")

    return copy


def checked(folder: Path) -> tuple[Samples, float]:
    """Load the graphs of a version of a chunk cell and check them."""
    model, _, files = spec.read_version(folder)
    network = model.network
    runtime = Runtime(files[GRAPH], [(one.input, one.output) for one in network.states], "cpu", 1)
    init = None if network.init is None else InitRuntime(files[network.init.file], "cpu", 1)
    return check_graphs(model, runtime, init, model.variants["fp32"].tolerance, 4)


def refusal_of(folder: Path) -> str:
    with pytest.raises(ModelRefused) as refused:
        checked(folder)
    return str(refused.value)


def prepared(folder: Path) -> Prepared:
    return Preparation(CHOICES).run(folder)


def keep_golden(folder: Path, count: int = 3) -> None:
    """Give the first examples the outputs that the graph as it is now has for them, alone."""
    model, _, files = spec.read_version(folder)
    pairs = [(one.input, one.output) for one in model.network.states]
    samples = Samples(model, None)
    runs = runs_of(model, Runtime(files[GRAPH], pairs, "cpu", 1), samples)
    golden = spec_of(folder)["golden"][:count]
    for example, sample in zip(golden, samples.golden, strict=False):
        outputs = runs.alone(sample)[0].outputs
        example["outputs"] = [[float(value) for value in outputs[step]] for step in example["steps"]]
    spec_of(folder, golden=golden)


def rename(old: str, new: str) -> Change:
    """Give a tensor another name wherever it stands."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            node.input[:] = [new if one == old else one for one in node.input]
            node.output[:] = [new if one == old else one for one in node.output]
        for info in (*graph.input, *graph.output):
            info.name = new if info.name == old else info.name

    return change


def swap(one: str, other: str) -> Change:
    """Let two tensors take each other's names as outputs of nodes."""

    def change(model: onnx.ModelProto) -> None:
        names = {one: other, other: one}
        for node in model.graph.node:
            node.output[:] = [names.get(name, name) for name in node.output]

    return change


def pass_through(before: str, after: str) -> Change:
    """Let the state after a chunk be the one before it."""

    def change(model: onnx.ModelProto) -> None:
        rename(after, "unused")(model)
        [info] = [one for one in model.graph.output if one.name == "unused"]
        info.name = after
        model.graph.node.append(helper.make_node("Identity", [before], [after]))

    return change


def fix_axis(name: str, axis: int, size: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        [info] = [one for one in (*model.graph.input, *model.graph.output) if one.name == name]
        info.type.tensor_type.shape.dim[axis].dim_value = size

    return change


def rename_axes(model: onnx.ModelProto) -> None:
    """Name the free axes as exporters do, and leave some without a name."""
    number = 0
    for info in (*model.graph.input, *model.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            if dimension.dim_param:
                number += 1
                dimension.dim_param = f"s{number}" if number % 3 else ""


def reverse(model: onnx.ModelProto) -> None:
    """Let the recurrent nodes run from the last step to the first."""
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            node.attribute.append(helper.make_attribute("direction", "reverse"))


def forget_lengths(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            node.input[4] = ""


def mix_rows(model: onnx.ModelProto) -> None:
    """Take the mean of all rows from the outputs: a statistic of the batch."""
    rename("output", "output.own")(model)
    [info] = [one for one in model.graph.output if one.name == "output.own"]
    info.name = "output"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["output.own"], ["output.mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["output.own", "output.mean"], ["output"]),
        ]
    )


def widen_head(model: onnx.ModelProto) -> None:
    """Give the head one output more than model.json says."""
    for tensor in model.graph.initializer:
        if tensor.name in ("head.weight", "head.bias"):
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.concatenate([value, value[:1]]), tensor.name))
    [info] = [one for one in model.graph.output if one.name == "output"]
    info.type.tensor_type.shape.dim[1].dim_value += 1


@pytest.mark.parametrize("net", CHUNK_NETS, ids=lambda net: net.name)
def test_good_version_is_admitted_and_its_invariance_measured(exported: Path, net: Net) -> None:
    found = prepared(exported / net.name / "1")
    assert found.golden_max_error < 1e-5
    assert found.batch_invariant is all(layer.kind != "rnn" for layer in net.layers)
    assert (found.init is not None) is (net is BEGUN)


def test_names_of_free_axes_do_not_matter(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(ACTIVITY)
    edit_graph(folder, rename_axes)
    assert checked(folder)[1] < 1e-5


def test_batch_axis_of_the_init_graph_may_be_fixed_at_one(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(BEGUN)
    edit_graph(folder, fix_axis("image", 0, 1), INIT_GRAPH)
    assert checked(folder)[1] < 1e-5


HIDDEN, CELL = "memory/h:0", "memory/c:0"
SIGNATURES = [
    pytest.param(
        ACTIVITY,
        rename("lengths", "sizes"),
        "expected the input lengths, int32 [batch], found none, and sizes beside the others: "
        "a chunk cell has to stop at each row's length",
        id="lengths of another name",
    ),
    pytest.param(
        ACTIVITY,
        fix_axis("input", 0, 1),
        "expected the input input, float32 [batch, time, 3], found float32 [1, time, 3], axis 0 fixed at 1: "
        "export the graph with that axis dynamic",
        id="static batch",
    ),
    pytest.param(
        ACTIVITY,
        fix_axis("input", 1, 20),
        "expected the input input, float32 [batch, time, 3], found float32 [batch, 20, 3], "
        "axis 1 fixed at 20: export the graph with that axis dynamic",
        id="frozen time",
    ),
    pytest.param(
        ACTIVITY,
        widen_head,
        "expected the output output, float32 [wanted, 3], found float32 [wanted, 4], axis 1 fixed at 4",
        id="wider output",
    ),
    pytest.param(
        ODD,
        rename(CELL, "cell"),
        f"expected the input {CELL}, float32 [batch, 5], found none, and cell beside the others",
        id="state of another name",
    ),
    pytest.param(
        ODD,
        lambda model: model.graph.output.append(
            helper.make_tensor_value_info("node0.Y", TensorProto.FLOAT, None)
        ),
        "expected no output beside output, memory/h:0.next, memory/c:0.next, memory/h:1.next, found node0.Y",
        id="output too many",
    ),
]


@pytest.mark.parametrize(("net", "change", "sentence"), SIGNATURES)
def test_graph_of_another_signature_is_refused_by_its_tensor(
    version_of: Callable[[Net], Path], net: Net, change: Change, sentence: str
) -> None:
    folder = version_of(net)
    edit_graph(folder, change)
    assert refusal_of(folder) == f"check 'signature' failed: {sentence}"


INITS = [
    pytest.param(
        rename("image", "picture"),
        "expected the input of the init graph image, float32 [1, 5], found none, "
        "and picture beside the others",
        id="input of another name",
    ),
    pytest.param(
        fix_axis("speaker", 0, 2),
        "expected the input of the init graph speaker, float32 [1, 3], found float32 [2, 3], "
        "axis 0 fixed at 2",
        id="batch of two",
    ),
    pytest.param(
        rename("layer0.h", "thought"),
        "expected outputs of the init graph among the states, layer0.h, layer0.c, layer1.h, layer1.c, "
        "found thought",
        id="output that is no state",
    ),
    pytest.param(
        lambda model: model.graph.ClearField("output"),
        "expected outputs of the init graph among the states, layer0.h, layer0.c, layer1.h, layer1.c, "
        "found none",
        id="no output",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), INITS)
def test_init_graph_of_another_signature_is_refused_by_its_tensor(
    version_of: Callable[[Net], Path], change: Change, sentence: str
) -> None:
    folder = version_of(BEGUN)
    edit_graph(folder, change, INIT_GRAPH)
    assert refusal_of(folder) == f"check 'signature' failed: {sentence}"


CARRIES = (
    "a chunk cell carries its state from chunk to chunk, and no row depends on another; "
    "a network that looks both ways cannot be cut in time: convert it as whole"
)
STOPS = (
    "a row's state and outputs do not depend on what is behind its length in a chunk, and the head is "
    "computed at the positions that are wanted, in their order"
)
WRONG = [
    pytest.param(ODD, swap(f"{HIDDEN}.next", f"{CELL}.next"), "batched and chunked", CARRIES, id="swapped"),
    pytest.param(ODD, pass_through(CELL, f"{CELL}.next"), "batched and chunked", CARRIES, id="not carried"),
    pytest.param(ACTIVITY, reverse, "batched and chunked", CARRIES, id="backward"),
    pytest.param(ACTIVITY, mix_rows, "batched and chunked", CARRIES, id="rows that depend on each other"),
    pytest.param(ACTIVITY, forget_lengths, "in chunks of unequal lengths", STOPS, id="lengths ignored"),
]


@pytest.mark.parametrize(("net", "change", "way", "advice"), WRONG)
def test_graph_that_is_right_alone_only_is_refused_with_the_likely_reason(
    version_of: Callable[[Net], Path], net: Net, change: Change, way: str, advice: str
) -> None:
    """The golden outputs are those of the damaged graph, run alone, so that they show nothing there."""
    folder = version_of(net)
    edit_graph(folder, change)
    keep_golden(folder)
    found = refusal_of(folder)
    assert found.startswith("check 'golden' failed: expected outputs of example")
    assert f", {way}, within 0.0001 of the golden ones, found " in found
    assert found.endswith(f" off: {advice}")


def test_rows_that_depend_on_each_other_are_found_by_one_example(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(ACTIVITY)
    edit_graph(folder, mix_rows)
    keep_golden(folder, count=1)
    assert "batched and chunked" in refusal_of(folder)


@pytest.mark.parametrize(
    "change", [swap(f"{HIDDEN}.next", f"{CELL}.next"), pass_through(CELL, f"{CELL}.next")]
)
def test_state_that_is_not_carried_is_found_though_all_examples_have_one_step(
    version_of: Callable[[Net], Path], change: Change
) -> None:
    folder = version_of(ODD)
    spec_of(folder, golden=[one for one in spec_of(folder)["golden"] if one["steps"] == [0]])
    checked(folder)
    edit_graph(folder, change)
    found = refusal_of(folder)
    assert "expected outputs of random sequences of 12 steps, batched and chunked, within 0.0001" in found
    assert found.endswith(f" off: {CARRIES}")


def test_head_at_other_positions_than_are_wanted_is_found(version_of: Callable[[Net], Path]) -> None:
    """It takes the first valid steps, as many as are wanted, which is right where all of them are."""
    folder = version_of(ACTIVITY)

    def change(model: onnx.ModelProto) -> None:
        graph, make = model.graph, helper.make_node
        values = {"zero": [0], "row": [1], "flat": [-1]}
        scalars = {"first": 0, "second": 1}
        for name, value in (values | scalars).items():
            graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
        [place] = [index for index, node in enumerate(graph.node) if "wanted" in node.input]
        gathered = graph.node[place]
        nodes = [
            make("Shape", ["input"], ["sizes"]),
            make("Gather", ["sizes", "second"], ["time"]),
            make("Range", ["first", "time", "second"], ["steps"]),
            make("Cast", ["lengths"], ["lengths.wide"], to=TensorProto.INT64),
            make("Unsqueeze", ["lengths.wide", "row"], ["lengths.column"]),
            make("Less", ["steps", "lengths.column"], ["valid"]),
            make("Reshape", ["valid", "flat"], ["valid.flat"]),
            make("Compress", [gathered.input[0], "valid.flat"], ["valid.rows"], axis=0),
            make("Shape", ["wanted"], ["count"]),
            make("Slice", ["valid.rows", "zero", "count"], [gathered.output[0]]),
        ]
        after = list(graph.node)[place + 1 :]
        del graph.node[place:]
        graph.node.extend([*nodes, *after])

    edit_graph(folder, change)
    found = refusal_of(folder)
    assert ", in chunks of unequal lengths, within" in found
    assert found.endswith(f" off: {STOPS}")


@pytest.mark.parametrize("start", [0.0, [0.25] * 5])
def test_start_other_than_the_golden_examples_had_is_refused(
    version_of: Callable[[Net], Path], start: float | list[float]
) -> None:
    folder = version_of(ODD)
    states = spec_of(folder)["state"]
    states[1]["start"] = start
    spec_of(folder, state=states)
    assert ", alone, within" in refusal_of(folder)


def test_initial_values_other_than_the_golden_examples_had_are_refused(
    version_of: Callable[[Net], Path],
) -> None:
    folder = version_of(BEGUN)
    golden = spec_of(folder)["golden"]
    golden[0]["initial"]["image"][2] += 0.5
    spec_of(folder, golden=golden)
    assert "outputs of example 0, step 0, alone" in refusal_of(folder)


def replace_node(operator: str, *nodes: onnx.NodeProto) -> Change:
    """Put other nodes in the place of one."""

    def change(model: onnx.ModelProto) -> None:
        [old] = [one for one in model.graph.node if one.op_type == operator]
        model.graph.node.remove(old)
        model.graph.node.extend(nodes)

    return change


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        (
            [helper.make_node("Log", ["bias"], ["layer0.h.one"])],
            "expected finite numbers in layer0.h of the init graph of shape 1 x 6, "
            "found others for a golden example",
        ),
        (
            [helper.make_node("Concat", ["bias", "bias"], ["layer0.h.one"], axis=0)],
            "expected the output of the init graph layer0.h, float32 [1, 6], found float32 [1, 12], "
            "axis 1 fixed at 12",
        ),
    ],
    ids=["not finite", "another width"],
)
def test_init_graph_that_gives_no_start_is_refused(
    version_of: Callable[[Net], Path], nodes: Sequence[onnx.NodeProto], sentence: str
) -> None:
    folder = version_of(BEGUN)
    axis = numpy_helper.from_array(np.array([0], np.int64), "axis")

    def change(model: onnx.ModelProto) -> None:
        last = helper.make_node("Unsqueeze", ["layer0.h.one", "axis"], ["layer0.h"])
        replace_node("Tanh", *nodes, last)(model)
        model.graph.initializer.append(axis)
        for dimension in model.graph.output[0].type.tensor_type.shape.dim:
            dimension.Clear()

    edit_graph(folder, change, INIT_GRAPH)
    assert refusal_of(folder).partition(" failed: ")[2] == sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda found: found["state"][0].update(start=1e39),
            "state[0].start: expected at most 3.40282e+38, found 1e+39",
        ),
        (
            lambda found: found["state"][0].update(start=[0.0] * 15),
            "state[0]: start must be one number or 16, found 15",
        ),
        (
            lambda found: found["golden"][1]["features"][0].__setitem__(2, -1e300),
            "golden[1].features[0][2]: expected at least -3.40282e+38, found -1e+300",
        ),
    ],
    ids=["start", "row of starts", "features"],
)
def test_number_that_no_tensor_holds_is_refused_by_its_place(
    version_of: Callable[[Net], Path], change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    folder = version_of(ACTIVITY)
    described = json.loads((folder / spec.SPEC_FILE).read_text())
    change(described)
    (folder / spec.SPEC_FILE).write_text(json.dumps(described))
    with pytest.raises(spec.SpecError) as refused:
        spec.read_version(folder)
    assert sentence in str(refused.value)


def test_token_that_the_graph_has_no_embedding_of_is_found_without_an_example(
    version_of: Callable[[Net], Path],
) -> None:
    """The examples have tokens below 18; a caller's 19 would fail at run time."""
    folder = version_of(contract2.TOPICS)

    def shrink(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "embedding":
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:18], tensor.name))

    edit_graph(folder, shrink)
    golden = [one for one in spec_of(folder)["golden"] if max(one["tokens"]) < 18]
    assert golden
    spec_of(folder, golden=golden)
    with pytest.raises(ModelRefused, match=r"check '(golden|invariance)' failed: .*Gather"):
        prepared(folder)


def test_init_graph_that_never_ends_is_ended_by_the_trial(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(BEGUN)

    def loop(model: onnx.ModelProto) -> None:
        scalar = [helper.make_tensor_value_info("go", TensorProto.BOOL, [])]
        step = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["go.on"]), helper.make_node("Identity", ["h"], ["h.on"])],
            "forever",
            [helper.make_tensor_value_info("trip", TensorProto.INT64, []), *scalar, _row("h")],
            [helper.make_tensor_value_info("go.on", TensorProto.BOOL, []), _row("h.on")],
        )
        rename("layer0.h", "once")(model)
        model.graph.output[0].name = "layer0.h"
        yes = numpy_helper.from_array(np.array(True), "yes")
        model.graph.initializer.append(yes)
        model.graph.node.append(helper.make_node("Loop", ["", "yes", "once"], ["layer0.h"], body=step))

    edit_graph(folder, loop, INIT_GRAPH)
    trial = Trial(settings_of(folder.parent.parent, admission_seconds=2.0))
    with pytest.raises(ModelRefused, match=r"check 'trial' failed: .* found no end within that time"):
        trial.run(folder)


def _row(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_graph_of_another_net_is_refused_by_its_hash(
    exported: Path, version_of: Callable[[Net], Path]
) -> None:
    folder = version_of(ACTIVITY)
    (folder / GRAPH).write_bytes((exported / ODD.name / "1" / GRAPH).read_bytes())
    with pytest.raises(spec.SpecError, match=f"sha256 of {GRAPH}: expected"):
        prepared(folder)
    replace_file(folder, GRAPH, (folder / GRAPH).read_bytes())
    assert refusal_of(folder).startswith("check 'signature' failed: expected the input input, float32")


# What callers send beside what the network gets.

ROWS = [[0.5, 0.1, 2.0], [1.5, -0.2, 3.0], [0.0, 0.3, 10.0], [2.5, 0.0, 0.5], [1.0, 1.0, 1.0]]


def with_values(folder: Path, change: Callable[[dict[str, Any]], None]) -> spec.ModelSpec:
    """Return a spec whose example 1 has values beside its features, as its columns give these."""
    described = json.loads((folder / spec.SPEC_FILE).read_text())
    columns = described["sequences"]["columns"]
    logs = [column.get("transform") == "log" for column in columns]
    golden = described["golden"][1]
    golden["values"] = [list(row) for row in ROWS]
    golden["features"] = [
        [
            float((np.log(value) if log else value) - column.get("mean", 0.0)) / column.get("scale", 1.0)
            for value, log, column in zip(row, logs, columns, strict=True)
        ]
        for row in ROWS
    ]
    change(described)
    return spec.parse_spec(json.dumps(described))


def test_values_of_another_width_are_refused_by_their_place(exported: Path) -> None:
    with pytest.raises(spec.SpecError, match=r"golden\[1\].values must hold rows of 3 values"):
        with_values(exported / ACTIVITY.name / "1", lambda found: found["golden"][1]["values"][2].pop())


VALUES = [
    pytest.param(lambda _: None, None, id="right"),
    pytest.param(
        lambda found: found["sequences"]["columns"][0].update(scale=2.1),
        "expected the features of example 1 for its values, 0.5 at step 1, column 0, found 0.47619",
        id="another scale",
    ),
    pytest.param(
        lambda found: found["golden"][1]["values"][3].__setitem__(2, -0.5),
        "found values[11]: expected a finite number above 0 for power, found -0.5",
        id="no logarithm",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), VALUES)
def test_values_of_a_golden_example_must_give_its_features(
    exported: Path, change: Callable[[dict[str, Any]], None], sentence: str | None
) -> None:
    model = with_values(exported / ACTIVITY.name / "1", change)
    if sentence is None:
        check_preprocessing(model, None)
        return
    with pytest.raises(ModelRefused) as refused:
        check_preprocessing(model, None)
    assert str(refused.value).startswith("check 'preprocessing' failed: ")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("text", "is_right"), [("abc", True), ("xabc" * 3 + "abcdefgh", None), ("abd", False)], ids=str
)
def test_text_of_a_golden_example_gives_its_whole_window(
    exported: Path, text: str, is_right: bool | None
) -> None:
    """abc is padded at the left; of a longer text, which has a letter outside the vocabulary, nothing is."""
    described = json.loads((exported / WINDOWED.name / "1" / spec.SPEC_FILE).read_text())
    pad = int(described["window"]["value"])
    letters = contract2.VOCABULARY.index
    described["golden"][0] |= {"tokens": [pad] * 5 + [letters(one) for one in "abc"], "text": text}
    model = spec.parse_spec(json.dumps(described))
    if is_right:
        check_preprocessing(model, None)
        return
    with pytest.raises(ModelRefused, match="others, 8 in all" if is_right is False else "character"):
        check_preprocessing(model, None)
