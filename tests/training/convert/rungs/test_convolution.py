"""Causal convolutions are found in whatever form they are written, and become states of chunk cells."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from service.contract import spec
from tests.training.convert.exports import FOLDER, fill, legacy
from training.convert.converted import Converted
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.constants import opset_of
from training.convert.graph.session import Session
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.rungs.convolution import Convolution, NotCausal, causal_convolutions
from training.export.graph_builder import Attribute

FEATURES, CHANNELS, KERNEL, DILATION = 5, 6, 3, 2
PAST = (KERNEL - 1) * DILATION
TOLERANCE = 5e-6
Layer = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]


class Front(nn.Module):
    """A causal convolution in front of a GRU; subclasses pad in other ways."""

    def __init__(self, padding: int = 0, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(FEATURES, CHANNELS, KERNEL, dilation=DILATION, padding=padding, stride=stride)
        self.gru = nn.GRU(CHANNELS, 4, batch_first=True)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.gru(torch.relu(self.convolved(x)).transpose(1, 2))[0]
        return y

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, channels, T) of (B, T, features)."""
        found: torch.Tensor = self.conv(functional.pad(x.transpose(1, 2), (PAST, 0)))
        return found


class Chomped(Front):
    """Pads on both sides, and cuts the end off."""

    def __init__(self) -> None:
        super().__init__(padding=PAST)

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x.transpose(1, 2))[:, :, :-PAST].contiguous()
        return found


class PaddedEarly(Front):
    """Pads before time and features change places."""

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(functional.pad(x, (0, 0, PAST, 0)).transpose(1, 2))
        return found


class Joined(Front):
    """Puts zeros in front by concatenation."""

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        data = x.transpose(1, 2)
        zeros = torch.zeros(data.shape[0], FEATURES, PAST)
        found: torch.Tensor = self.conv(torch.cat([zeros, data], 2))
        return found


class Block(nn.Module):
    """A residual block of a temporal convolutional network: two convolutions in a row and a skip."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, groups: int = 1) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.first = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=self.past)
        self.second = nn.Conv1d(outputs, outputs, kernel, dilation=dilation, groups=groups)
        self.skip = nn.Conv1d(inputs, outputs, 1)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(x)[:, :, : -self.past] if self.past else self.first(x)))
        y = torch.relu(self.second(functional.pad(y, (self.past, 0))))
        return torch.relu(y + self.skip(x))


class Stack(nn.Module):
    """Dilated blocks, a recurrent layer, a convolution behind it, and a head at the last step."""

    def __init__(self, kernels: tuple[int, ...] = (3, 2), groups: int = 2, kind: Layer = nn.LSTM) -> None:
        super().__init__()
        sizes = [FEATURES] + [4] * len(kernels)
        self.blocks = nn.Sequential(
            *(Block(sizes[i], 4, kernel, 2**i, groups) for i, kernel in enumerate(kernels))
        )
        self.layer = kind(4, 6, batch_first=True)
        self.after = nn.Conv1d(6, 3, 2)
        self.head = nn.Linear(3, 2)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(self.blocks(x.transpose(1, 2)).transpose(1, 2))[0]
        y = self.after(functional.pad(y.transpose(1, 2), (1, 0)))
        outputs: torch.Tensor = self.head(torch.tanh(y[:, :, -1]))
        return outputs


class Spectral(nn.Module):
    """Convolves over the features of each frame, not over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(1, 2, 3, padding=1), nn.GRU(2 * FEATURES, 4, batch_first=True)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.relu(self.conv(x.reshape(-1, 1, FEATURES)))
        y: torch.Tensor = self.gru(rows.reshape(x.shape[0], x.shape[1], 2 * FEATURES))[0]
        return y


def exported(module: nn.Module) -> onnx.ModelProto:
    return legacy(module.eval(), torch.zeros(2, 7, FEATURES), axes={"x": {0: "batch", 1: "time"}})


def convert(model: onnx.ModelProto, folder: Path) -> Converted:
    return climb(Foreign(model, spec.Source(file="net.onnx", sha256="0" * 64)), Choices(), folder)


def found_in(model: onnx.ModelProto) -> list[Convolution | NotCausal]:
    return causal_convolutions(model.graph, opset_of(model))


FORMS: dict[str, Callable[[], onnx.ModelProto]] = {
    "pad": lambda: exported(Front()),
    "chomp": lambda: exported(Chomped()),
    "pad before transpose": lambda: exported(PaddedEarly()),
    "concat": lambda: exported(Joined()),
    "pad, dynamo": lambda: onnx.load(str(FOLDER / "Front.onnx")),
    "chomp, dynamo": lambda: onnx.load(str(FOLDER / "Chomped.onnx")),
    "concat, dynamo": lambda: onnx.load(str(FOLDER / "Joined.onnx")),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_way_to_pad_is_found_and_converted(form: str, tmp_path: Path) -> None:
    model = FORMS[form]()
    (found,) = found_in(model)
    assert isinstance(found, Convolution)
    assert (found.past, found.inputs, found.outputs) == (PAST, FEATURES, CHANNELS)
    made = convert(model, tmp_path)
    assert made.kind == "chunk"
    assert [one.size for one in made.states] == [4, PAST * FEATURES]
    assert made.difference <= TOLERANCE
    assert made.found[-1] == "causal convolutions: 1, whose last inputs are states of 20 numbers"


@pytest.mark.parametrize("source", ["legacy", "dynamo"])
def test_dilated_stack_around_a_recurrent_layer_is_a_chunk_cell(source: str, tmp_path: Path) -> None:
    model = exported(Stack()) if source == "legacy" else onnx.load(str(FOLDER / "Stack.onnx"))
    made = convert(model, tmp_path)
    assert made.kind == "chunk"
    # Two of kernel 3, two of kernel 2 and dilation 2, and one behind the LSTM.
    assert sorted(one.size for one in made.states) == sorted([6, 6, 2 * 5, 2 * 4, 2 * 4, 2 * 4, 1 * 6])
    assert made.difference <= TOLERANCE


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    kernels=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    groups=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]),
)
def test_any_stack_equals_the_module(
    tmp_path_factory: pytest.TempPathFactory,
    kernels: tuple[int, ...],
    groups: int,
    kind: Layer,
) -> None:
    module = Stack(kernels, groups, kind)
    made = convert(exported(module), tmp_path_factory.mktemp("stack"))
    assert made.kind == "chunk"
    assert made.difference <= TOLERANCE
    assert len(made.states) == (2 if kind is nn.LSTM else 1) + 1 + 2 * sum(size > 1 for size in kernels)
    for one in made.examples:
        with torch.no_grad():
            expected = module(torch.from_numpy(one.inputs)[None]).numpy()
        np.testing.assert_allclose(one.outputs[-1:], expected, atol=1e-5)


def test_state_is_the_last_valid_inputs_exactly(tmp_path: Path) -> None:
    made = convert(exported(Front()), tmp_path)
    session = Session(made.graph, tmp_path)
    name = next(one.input for one in made.states if one.size == PAST * FEATURES)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (3, 7, FEATURES)).astype(np.float32)
    lengths = np.array([1, 7, 4], np.int32)
    before = rng.normal(0, 1, (3, PAST, FEATURES)).astype(np.float32)
    feeds = {one.input: np.zeros((3, one.size), np.float32) for one in made.states}
    feeds[name] = before.reshape(3, -1)
    after = session.run(
        feeds | {"input": x, "lengths": lengths, "wanted": np.zeros(0, np.int64)}, [name + spec.NEXT_SUFFIX]
    )[0]
    for row, length in enumerate(lengths):
        joined = np.concatenate([before[row], x[row, :length]])
        np.testing.assert_array_equal(after[row].reshape(PAST, FEATURES), joined[-PAST:])


@pytest.mark.parametrize("groups", [1, 2])
def test_answer_does_not_depend_on_how_a_sequence_is_cut(groups: int, tmp_path: Path) -> None:
    made = convert(exported(Stack((3, 5), groups, nn.GRU)), tmp_path)
    session = Session(made.graph, tmp_path)
    x = np.random.default_rng(0).normal(0, 1, (1, 40, FEATURES)).astype(np.float32)
    whole = outputs_of(session, made, x, 40)
    for steps in (1, 7, 20):
        cut = outputs_of(session, made, x, steps)
        # A Conv with groups differs in the last bits.
        np.testing.assert_allclose(cut, whole, rtol=0, atol=0 if groups == 1 else 1e-5)


def outputs_of(session: Session, made: Converted, x: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Outputs at every step of one sequence, cut into chunks of so many steps."""
    states: dict[str, Array] = {one.input: np.zeros((1, one.size), np.float32) for one in made.states}
    found = []
    for start in range(0, x.shape[1], steps):
        chunk = x[:, start : start + steps]
        size = chunk.shape[1]
        feeds = states | {"input": chunk, "lengths": np.array([size], np.int32), "wanted": np.arange(size)}
        output, *after = session.run(feeds)
        states = dict(zip(states, after, strict=True))
        found.append(output)
    return np.concatenate(found)


def test_convolution_over_the_features_of_a_step_needs_no_state(tmp_path: Path) -> None:
    model = exported(Spectral())
    (found,) = found_in(model)
    assert isinstance(found, NotCausal)
    made = convert(model, tmp_path)
    assert made.kind == "chunk"
    assert len(made.states) == 1


class Centred(Front):
    """Looks as far ahead as back."""

    def __init__(self) -> None:
        super().__init__(padding=PAST // 2)

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x.transpose(1, 2))
        return found


def test_centred_convolution_is_served_whole_with_the_reason(tmp_path: Path) -> None:
    made = convert(exported(Centred()), tmp_path)
    assert made.kind == "whole"
    (rung, reason), *_ = made.tried
    assert rung == "chunk"
    assert "is not causal: expected 4 time steps of zeros before" in reason
    assert "found 2 before and 2 behind" in reason


class Subsampled(Front):
    """Gives the recurrent layer every second step, and answers at its last."""

    def __init__(self, padding: int = PAST // 2) -> None:
        super().__init__(padding=padding, stride=2)

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x.transpose(1, 2))
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, -1]


def test_subsampling_convolution_is_served_whole_with_the_reason(tmp_path: Path) -> None:
    made = convert(exported(Subsampled()), tmp_path)
    assert (made.kind, made.padding) == ("whole", "none")
    assert "gives an output for every 2 time steps only" in made.tried[0][1]


class SubsampledSteps(Subsampled):
    """Answers at every step that is left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Front.forward(self, x)


def test_outputs_at_every_second_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"found 3 for 5 steps; networks that change the number of steps"):
        convert(exported(SubsampledSteps()), tmp_path)


def test_network_that_takes_no_short_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Refused, match=r"proven .chunk: the convolution .* gives an output for every 2 time steps only"
    ):
        convert(exported(Subsampled(padding=0)), tmp_path)


def test_network_of_convolutions_alone_is_refused_by_name(tmp_path: Path) -> None:
    module = nn.Sequential(nn.ConstantPad1d((2, 0), 0.0), nn.Conv1d(7, 4, 3))
    model = legacy(fill_of(module), torch.zeros(2, 7, 9), axes={"x": {0: "batch", 2: "time"}})
    with pytest.raises(Refused, match=r"expected a recurrent node.*found.*Conv"):
        convert(model, tmp_path)


def fill_of(module: nn.Module) -> nn.Module:
    fill(module)
    return module


# Graphs written by hand: forms of tf2onnx and of others.


def weights(*shape: int) -> NDArray[np.float32]:
    numbers = np.sin(np.arange(np.prod(shape)) * 1.3).reshape(shape) / 2
    return np.asarray(numbers, np.float32)


def graph_of(
    nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], opset: int = 17
) -> onnx.ModelProto:
    """A model from x (B, T, 5) to y, GRU outputs of the tensor named conv (B, 6, T)."""
    recurrent = [
        helper.make_node("Transpose", ["conv"], ["rows"], perm=[2, 0, 1]),
        helper.make_node("GRU", ["rows", "W", "R"], ["Y"], hidden_size=4, linear_before_reset=1),
        helper.make_node("Transpose", ["Y"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "width"], ["y"]),
    ]
    constants = constants | {
        "W": weights(1, 12, CHANNELS),
        "R": weights(1, 12, 4),
        "width": np.array([0, 0, 4]),
    }
    graph = helper.make_graph(
        nodes + recurrent,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "time", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def plain(**attributes: Attribute) -> onnx.ModelProto:
    """A Conv of kernel 3 with these attributes right behind a Transpose."""
    turned = helper.make_node("Transpose", ["x"], ["turned_x"], perm=[0, 2, 1])
    conv = helper.make_node("Conv", ["turned_x", "kernel"], ["conv"])
    conv.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return graph_of([turned, conv], {"kernel": weights(CHANNELS, FEATURES, 3)})


def four_axes() -> onnx.ModelProto:
    """Keras Conv1D as tf2onnx writes it: padded in [B, T, C], convolved over (B, C, 1, T)."""
    nodes = [
        helper.make_node("Pad", ["x", "amounts"], ["padded"]),
        helper.make_node("Unsqueeze", ["padded", "one"], ["wide"]),
        helper.make_node("Transpose", ["wide"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "kernel"], ["conv4"], kernel_shape=[1, 3]),
        helper.make_node("Transpose", ["conv4"], ["channels_last"], perm=[0, 2, 3, 1]),
        helper.make_node("Squeeze", ["channels_last", "one"], ["narrow"]),
        helper.make_node("Transpose", ["narrow"], ["conv"], perm=[0, 2, 1]),
    ]
    return graph_of(
        nodes,
        {
            "amounts": np.array([0, 2, 0, 0, 0, 0]),
            "one": np.array([1]),
            "kernel": weights(CHANNELS, FEATURES, 1, 3),
        },
    )


def old_pad() -> onnx.ModelProto:
    """Pad with attributes, as before version 11."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned_x"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["turned_x"], ["padded"], pads=[0, 0, 2, 0, 0, 0]),
        helper.make_node("Conv", ["padded", "kernel"], ["conv"], kernel_shape=[3]),
    ]
    return graph_of(nodes, {"kernel": weights(CHANNELS, FEATURES, 3)}, opset=10)


def padded_axes() -> onnx.ModelProto:
    """Pad with its axes as an input."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned_x"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["turned_x", "amounts", "", "axes"], ["padded"]),
        helper.make_node("Conv", ["padded", "kernel"], ["conv"], kernel_shape=[3]),
    ]
    constants = {
        "amounts": np.array([2, 0]),
        "axes": np.array([-1]),
        "kernel": weights(CHANNELS, FEATURES, 3),
    }
    return graph_of(nodes, constants, opset=18)


HAND_WRITTEN: dict[str, Callable[[], onnx.ModelProto]] = {
    "padding of the Conv": lambda: plain(pads=[2, 0]),
    "four axes": four_axes,
    "Pad with axes": padded_axes,
}


@pytest.mark.parametrize("form", HAND_WRITTEN)
def test_forms_of_other_exporters_are_converted(form: str, tmp_path: Path) -> None:
    model = HAND_WRITTEN[form]()
    (found,) = found_in(model)
    assert isinstance(found, Convolution)
    assert (found.past, found.inputs, found.outputs) == (2, FEATURES, CHANNELS)
    # None of the nodes has a name.
    made = convert(model, tmp_path)
    assert made.kind == "chunk"
    assert [one.size for one in made.states] == [4, 2 * FEATURES]
    assert made.difference <= TOLERANCE


def test_old_form_of_pad_is_found_but_needs_newer_operators(tmp_path: Path) -> None:
    (found,) = found_in(old_pad())
    assert isinstance(found, Convolution)
    assert found.past == 2
    made = convert(old_pad(), tmp_path)
    assert made.kind == "whole"
    assert "needs opset 12 or newer, found 10" in made.tried[0][1]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"auto_pad": "SAME_UPPER"}, "found 1 before and 1 behind"),
        ({"auto_pad": "VALID"}, "found 0 before and 0 behind"),
        ({"pads": [0, 2]}, "found 0 before and 2 behind"),
        ({"pads": [3, 0]}, "found 3 before and 0 behind"),
        ({"pads": [2, 0], "strides": [2]}, "for every 2 time steps only"),
        ({"pads": [2, 0], "dilations": [2]}, "expected 4 time steps of zeros"),
    ],
    ids=str,
)
def test_convolution_that_is_not_causal_has_a_reason(attributes: dict[str, Attribute], reason: str) -> None:
    (found,) = found_in(plain(**attributes))
    assert isinstance(found, NotCausal)
    assert reason in found.reason


def test_padding_with_another_number_than_zero_is_not_causal() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned_x"], perm=[0, 2, 1]),
        helper.make_node("Pad", ["turned_x", "amounts", "number"], ["padded"]),
        helper.make_node("Conv", ["padded", "kernel"], ["conv"], kernel_shape=[3]),
    ]
    constants = {
        "amounts": np.array([0, 0, 2, 0, 0, 0]),
        "number": np.array(0.5, np.float32),
        "kernel": weights(CHANNELS, FEATURES, 3),
    }
    (found,) = found_in(graph_of(nodes, constants))
    assert isinstance(found, NotCausal)
    assert "other numbers than zeros" in found.reason
