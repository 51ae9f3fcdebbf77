"""service.models.checks on whole networks: padding that is honoured, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from service.errors import ModelRefused
from service.models.checks import check_graphs, runs_of
from service.models.invariance import is_batch_invariant
from service.models.samples import Samples
from service.models.table import Entry, Status
from service.runtime import WholeRuntime
from tests import contract2
from tests.contract2 import BOTH_WAYS, EQUAL, GRAPH, POOLED, WHOLE_NETS
from tests.contract2_graphs import Net
from tests.service.builders import edit_graph, load_repository, spec_of

Change = Callable[[onnx.ModelProto], None]
STEPS_PER_SECOND = 1e6


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version a network. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for net in WHOLE_NETS:
        contract2.export(net, folder)
    return folder


@pytest.fixture
def version_of(exported: Path, tmp_path: Path) -> Callable[[Net], Path]:
    def copy(net: Net) -> Path:
        return shutil.copytree(exported / net.name / "1", tmp_path / net.name / "1")

    return copy


def loaded(folder: Path) -> tuple[spec.ModelSpec, WholeRuntime]:
    model, _, files = spec.read_version(folder)
    return model, WholeRuntime(files[GRAPH], "cpu", 1)


def check(folder: Path) -> None:
    model, runtime = loaded(folder)
    check_graphs(model, runtime, None, model.variants["fp32"].tolerance, 4)


def refusal_of(folder: Path) -> str:
    with pytest.raises(ModelRefused) as refused:
        check(folder)
    return str(refused.value)


def is_invariant(folder: Path) -> bool:
    model, runtime = loaded(folder)
    samples = Samples(model, None)
    return is_batch_invariant(runtime, runs_of(model, runtime, samples), samples, STEPS_PER_SECOND)


def keep_golden(folder: Path) -> None:
    """Give the examples the outputs that the graph as it is now has for them, alone."""
    model, runtime = loaded(folder)
    samples = Samples(model, None)
    runs = runs_of(model, runtime, samples)
    golden = spec_of(folder)["golden"]
    for example, sample in zip(golden, samples.golden, strict=True):
        outputs = runs.alone(sample)[0].outputs
        rows = [0] if model.network.is_pooled else example["steps"]
        example["outputs"] = [[float(value) for value in outputs[row]] for row in rows]
    spec_of(folder, golden=golden)


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name in nodes alone: the graph's edge keeps it."""
    for node in model.graph.node:
        node.output[:] = [new if one == old else one for one in node.output]


def forget_lengths(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("LSTM", "GRU", "RNN"):
            node.input[4] = ""


def drop_lengths(model: onnx.ModelProto) -> None:
    forget_lengths(model)
    [lengths] = [one for one in model.graph.input if one.name == "lengths"]
    model.graph.input.remove(lengths)


def mix_rows(weight: float) -> Change:
    """Return an edit that adds a share of the mean of all rows: a statistic of the batch."""

    def change(model: onnx.ModelProto) -> None:
        rename(model, "output", "own")
        model.graph.initializer.append(numpy_helper.from_array(np.array(weight, np.float32), "weight"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1),
                helper.make_node("Mul", ["mean", "weight"], ["share"]),
                helper.make_node("Add", ["own", "share"], ["output"]),
            ]
        )

    return change


def weigh_by_time(model: onnx.ModelProto) -> None:
    """Divide the output by the number of steps of the batch, padding included."""
    rename(model, "output", "own")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "second"))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["input"], ["shape"]),
            helper.make_node("Gather", ["shape", "second"], ["steps"]),
            helper.make_node("Cast", ["steps"], ["steps.float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["own", "steps.float"], ["output"]),
        ]
    )


def cut_at_first_length(model: onnx.ModelProto) -> None:
    """Give as many steps of all rows as the first one has, and declare as many as the batch has."""
    rename(model, "output", "own")
    values = {"first": np.array([0], np.int64), "second": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in values.items())
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["lengths"], ["ends"], to=TensorProto.INT64),
            helper.make_node("Gather", ["ends", "first"], ["end"]),
            helper.make_node("Slice", ["own", "first", "end", "second"], ["output"]),
        ]
    )


@pytest.mark.parametrize("net", WHOLE_NETS, ids=lambda net: net.name)
def test_good_network_is_admitted_and_has_the_same_bits_in_every_batch(exported: Path, net: Net) -> None:
    folder = exported / net.name / "1"
    check(folder)
    assert is_invariant(folder)


BEHIND = (
    "what is behind a row's length changes no output; "
    "a network that reads it has padding none, for sequences of equal lengths"
)
ROWS = "rows of a batch do not depend on each other"
WRONG = [
    pytest.param(BOTH_WAYS, forget_lengths, "alone with garbage behind its end", BEHIND, id="every step"),
    pytest.param(POOLED, forget_lengths, "alone with garbage behind its end", BEHIND, id="pooled"),
    pytest.param(POOLED, weigh_by_time, "alone with garbage behind its end", BEHIND, id="counts padding"),
    pytest.param(POOLED, mix_rows(0.5), "batched with garbage behind its end", BEHIND, id="rows mixed"),
    pytest.param(EQUAL, mix_rows(0.5), "batched", ROWS, id="rows mixed, equal lengths"),
]


@pytest.mark.parametrize(("net", "change", "way", "advice"), WRONG)
def test_network_that_is_right_alone_only_is_refused_with_the_likely_reason(
    version_of: Callable[[Net], Path], net: Net, change: Change, way: str, advice: str
) -> None:
    """The golden outputs are those of the damaged graph, run alone with nothing behind the end."""
    folder = version_of(net)
    edit_graph(folder, change)
    keep_golden(folder)
    found = refusal_of(folder)
    assert found.startswith("check 'golden' failed: expected outputs of example")
    assert f", {way}, within 0.0001 of the golden ones, found " in found
    assert found.endswith(f" off: {advice}")


SIGNATURES = [
    pytest.param(
        POOLED,
        drop_lengths,
        "expected the input lengths, int32 [batch], found none: the padding of a network without it is none",
        id="no lengths",
    ),
    pytest.param(
        EQUAL,
        lambda model: model.graph.input.append(
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["batch"])
        ),
        "expected no input beside input, found lengths: a network that takes lengths has padding lengths",
        id="lengths without padding",
    ),
]


@pytest.mark.parametrize(("net", "change", "sentence"), SIGNATURES)
def test_lengths_and_padding_go_together(
    version_of: Callable[[Net], Path], net: Net, change: Change, sentence: str
) -> None:
    folder = version_of(net)
    edit_graph(folder, change)
    assert refusal_of(folder) == f"check 'signature' failed: {sentence}"


def test_network_said_to_be_pooled_that_gives_every_step_is_refused(
    version_of: Callable[[Net], Path],
) -> None:
    folder = version_of(BOTH_WAYS)
    golden = spec_of(folder)["golden"]
    for example in golden:
        example["steps"], example["outputs"] = example["steps"][-1:], example["outputs"][-1:]
    section = spec_of(folder)["sequences"]
    section["output"]["steps"] = "last"
    spec_of(folder, golden=golden, pooled=True, sequences=section)
    assert refusal_of(folder) == (
        "check 'signature' failed: expected the output output, float32 [batch, 3], "
        "found float32 [batch, time, 3]"
    )


def test_output_of_another_shape_than_declared_is_refused(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(BOTH_WAYS)
    edit_graph(folder, cut_at_first_length)
    assert refusal_of(folder) == (
        "check 'golden' failed: expected output of shape 1 x 4 x 3 for a batch, found one of 1 x 1 x 3"
    )


def test_last_bits_that_other_rows_change_are_measured(version_of: Callable[[Net], Path]) -> None:
    for net in (POOLED, EQUAL):
        folder = version_of(net)
        edit_graph(folder, mix_rows(1e-6))
        check(folder)
        assert not is_invariant(folder)


def test_last_bits_that_padding_changes_are_measured(version_of: Callable[[Net], Path]) -> None:
    """A billionth of the mean of the input is added, padding included: far below the tolerance."""
    folder = version_of(POOLED)

    def change(model: onnx.ModelProto) -> None:
        rename(model, "output", "own")
        steps = helper.make_node("ReduceMean", ["input"], ["steps.mean"], axes=[1, 2], keepdims=1)
        values: dict[str, NDArray[Any]] = {
            "tiny": np.array(1e-9, np.float32),
            "third": np.array([2], np.int64),
        }
        model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in values.items())
        model.graph.node.extend(
            [
                steps,
                helper.make_node("Squeeze", ["steps.mean", "third"], ["steps.row"]),
                helper.make_node("Mul", ["steps.row", "tiny"], ["share"]),
                helper.make_node("Add", ["own", "share"], ["output"]),
            ]
        )

    edit_graph(folder, change)
    check(folder)
    assert not is_invariant(folder)


def convolve(model: onnx.ModelProto) -> None:
    """Put a convolution over 51 steps of 3 features in front, which reads zeros behind a row's length."""
    weights = np.random.default_rng(1).normal(0, 0.1, (3, 3, 51)).astype(np.float32)
    values: dict[str, NDArray[Any]] = {"front.weights": weights, "two": np.array([2], np.int64)}
    values |= {"row": np.array([1], np.int64), "first": np.array(0), "second": np.array(1)}
    model.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in values.items())
    make = helper.make_node
    for node in model.graph.node:
        node.input[:] = ["front" if name == "input" else name for name in node.input]
    front = [
        make("Shape", ["input"], ["front.shape"]),
        make("Gather", ["front.shape", "second"], ["front.time"]),
        make("Range", ["first", "front.time", "second"], ["front.steps"]),
        make("Cast", ["lengths"], ["front.lengths"], to=TensorProto.INT64),
        make("Unsqueeze", ["front.lengths", "row"], ["front.column"]),
        make("Less", ["front.steps", "front.column"], ["front.valid"]),
        make("Cast", ["front.valid"], ["front.ones"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["front.ones", "two"], ["front.mask"]),
        make("Mul", ["input", "front.mask"], ["front.masked"]),
        make("Transpose", ["front.masked"], ["front.channels"], perm=[0, 2, 1]),
        make("Conv", ["front.channels", "front.weights"], ["front.convolved"], pads=[25, 25]),
        make("Transpose", ["front.convolved"], ["front"], perm=[0, 2, 1]),
    ]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*front, *nodes])


def test_last_bits_that_longer_rows_of_more_than_64_steps_change_are_measured(
    version_of: Callable[[Net], Path],
) -> None:
    """The kernel of a convolution adds up in other blocks for 65 steps and more."""
    folder = version_of(BOTH_WAYS)
    edit_graph(folder, convolve)
    keep_golden(folder)
    check(folder)
    assert not is_invariant(folder)


def test_window_fixes_the_length_and_the_axis_of_time(version_of: Callable[[Net], Path]) -> None:
    folder = version_of(POOLED)
    described = spec_of(folder)
    golden = [one for one in described["golden"] if len(one["features"]) == 5]
    spec_of(folder, golden=golden, window={"to": 5, "side": "right", "value": 0.0})

    def fix(model: onnx.ModelProto) -> None:
        [info] = [one for one in model.graph.input if one.name == "input"]
        info.type.tensor_type.shape.dim[1].dim_value = 5

    edit_graph(folder, fix)
    check(folder)
    assert is_invariant(folder)


def entry_of(folder: Path) -> Entry:
    repository = load_repository(folder.parent.parent, slots=4)
    repository.stop()
    return repository.table.get(folder.parent.name, 0)


@pytest.mark.parametrize("net", WHOLE_NETS, ids=lambda net: net.name)
def test_whole_network_is_loaded_with_what_was_measured(version_of: Callable[[Net], Path], net: Net) -> None:
    entry = entry_of(version_of(net))
    assert entry.status is Status.READY, entry.message
    assert entry.served is not None
    assert entry.served.batch_invariant
    assert entry.served.golden_max_error < 1e-5


def test_network_that_reads_its_padding_is_refused_when_it_is_loaded(
    version_of: Callable[[Net], Path],
) -> None:
    folder = version_of(POOLED)
    edit_graph(folder, forget_lengths)
    entry = entry_of(folder)
    assert entry.status is Status.FAILED
    assert entry.details["check"] == "golden"
    assert entry.message.endswith(BEHIND)
