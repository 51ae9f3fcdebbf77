"""Exports with fixed sizes compute what the module computes at other sizes, once they are relaxed."""

import random
from collections.abc import Callable
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests.training.convert.exports import DYNAMO_FORMS, FORMS, Form, fill, legacy, legacy_form, stored
from training.convert.foreign import Refused
from training.convert.graph.constants import tensors_of
from training.convert.graph.session import Session
from training.convert.graph.zeros import are_zeros
from training.convert.original.fixed_sizes import reshape_sizes
from training.convert.original.repairs import relax

TOLERANCE = 1e-5
SIZES = ((1, 7), (1, 3), (3, 7), (4, 12), (2, 1))
Build = Callable[[Form], tuple[nn.Module, onnx.ModelProto]]


def difference(
    module: nn.Module,
    model: onnx.ModelProto,
    inputs: Callable[[int, int], tuple[torch.Tensor, ...]],
    sizes: tuple[tuple[int, int], ...] = SIZES,
) -> float:
    """Largest difference of a graph from its module at several sizes; infinite where it does not run."""
    session, worst = Session(model, None), 0.0
    for size in sizes:
        given = inputs(*size)
        with torch.no_grad():
            expected = module.eval()(*given).numpy()
        names = ["x", *(f"x{index}" for index in range(1, len(given)))]
        try:
            (found,) = session.run({name: one.numpy() for name, one in zip(names, given, strict=True)})
        except Refused:
            return float("inf")
        if found.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def numbers(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(0, 1, shape).astype(np.float32))


def form_difference(module: nn.Module, model: onnx.ModelProto, form: Form) -> float:
    return difference(module, model, lambda batch, steps: (numbers(*form.shape(batch, steps)),))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_legacy_exports_hold_at_any_size(form: Form) -> None:
    module, model = legacy_form(form)
    relaxed, done = relax(model)
    assert form_difference(module, relaxed, form) <= TOLERANCE
    assert bool(done) != form.is_dynamic
    assert form.is_dynamic or form_difference(module, model, form) == float("inf")


@pytest.mark.parametrize("form", DYNAMO_FORMS[:-1], ids=lambda form: form.name)
def test_dynamo_exports_hold_at_any_size(form: Form) -> None:
    module, model = stored(form)
    relaxed, done = relax(model)
    assert form_difference(module, relaxed, form) <= TOLERANCE
    # With free axes it writes the length into the reshape of a time-first network's outputs all the same.
    is_written = not form.is_dynamic or (not form.batch_first and form.head != "h_n")
    assert bool(done) == is_written


def test_unrolled_layer_keeps_its_length() -> None:
    module, model = stored(DYNAMO_FORMS[-1])
    assert not [node for node in model.graph.node if node.op_type == "RNN"]
    relaxed, _ = relax(model)
    assert form_difference(module, relaxed, DYNAMO_FORMS[-1]) == float("inf")
    with torch.no_grad():
        expected = module(numbers(1, 7, 3)).numpy()
    (found,) = Session(relaxed, None).run({"x": numbers(1, 7, 3).numpy()})
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


class Flattened(nn.Module):
    """The head runs on (batch * time) rows, and their sizes are put back by view."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 6)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(x)
        rows: torch.Tensor = torch.tanh(self.fc(y.contiguous().view(-1, 4)))
        return rows.view(x.shape[0], x.shape[1], 2, 3)


class LearnedStart(nn.Module):
    """The first state is a weight, repeated for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.start = nn.Parameter(torch.zeros(1, 1, 4))
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.gru(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0]
        return y


class Tokens(nn.Module):
    """An embedding, an LSTM in both directions, and the last step by an index that the exporter computes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(11, 3), nn.LSTM(3, 4, bidirectional=True, batch_first=True)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, (h, _) = self.lstm(self.table(x))
        return torch.cat([y[:, x.shape[1] - 1], h[0], h[1], y.mean(1), y.amax(1)], dim=-1)


class Attending(nn.Module):
    """Steps are weighted by a softmax over time; one slice ends where the sequence does."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.score = nn.GRU(3, 4, 2, batch_first=True), nn.Linear(4, 1)
        fill(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.gru(x)
        weights = torch.softmax(self.score(y), dim=1)
        pooled: torch.Tensor = (weights * y)[:, 0 : x.shape[1]].sum(1) + x[:, : x.shape[1], :1].sum(1)
        return pooled


class Streaming(nn.Module):
    """A state goes in; the data and the state have the batch in different axes."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, 2, batch_first=True)
        fill(self)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.gru(x, state)[0]
        return y


MODULES: dict[type[nn.Module], Callable[[int, int], tuple[torch.Tensor, ...]]] = {
    Flattened: lambda batch, steps: (numbers(batch, steps, 3),),
    LearnedStart: lambda batch, steps: (numbers(batch, steps, 3),),
    Tokens: lambda batch, steps: (torch.arange(batch * steps).reshape(batch, steps) % 11,),
    Attending: lambda batch, steps: (numbers(batch, steps, 3),),
    Streaming: lambda batch, steps: (numbers(batch, steps, 3), numbers(2, batch, 4)),
}


@pytest.mark.parametrize("kind", MODULES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch", [1, 2], ids=["batch of 1", "batch of 2"])
def test_modules_exported_without_free_axes_hold_at_any_size(kind: type[nn.Module], batch: int) -> None:
    module, inputs = kind(), MODULES[kind]
    model = legacy(module, *inputs(batch, 7))
    relaxed, done = relax(model)
    assert difference(module, relaxed, inputs) <= TOLERANCE
    assert done


def test_model_itself_is_not_changed() -> None:
    _, model = legacy_form(Form("LSTM", True, 2, "last", False))
    before = model.SerializeToString(deterministic=True)
    relaxed, done = relax(model)
    assert model.SerializeToString(deterministic=True) == before
    assert relaxed is not model
    assert any("axis 1 of x (7)" in sentence for sentence in done)


def test_model_with_free_axes_is_returned_as_it_is() -> None:
    _, model = legacy_form(Form("LSTM", True, 2, "last", True))
    assert relax(model)[0] is model


def test_state_that_is_not_zero_is_kept() -> None:
    module = LearnedStart()
    relaxed, _ = relax(legacy(module, numbers(1, 7, 3)))
    (node,) = [one for one in relaxed.graph.node if one.op_type == "GRU"]
    assert node.input[5].startswith("widened.")


@pytest.mark.parametrize(
    ("before", "after", "target", "expected"),
    [
        ((1, 7, 3), (None, None, 3), (7, 3), (-1, 3)),
        ((7, 3), (None, 3), (1, 7, 3), (("axis", 0), ("axis", 1), 3)),
        ((7, 3), (None, 3), (7, 1, 3), (("axis", 1), ("axis", 0), 3)),
        ((1, 7, 6), (None, None, 6), (1, 7, 2, 3), (0, 0, 2, 3)),
        ((1, 7, 2, 3), (None, None, 2, 3), (1, 7, 6), (0, 0, 6)),
        ((1, 1, 7, 3), (None, 1, None, 3), (1, 7, 3), (0, -1, 3)),
        ((4, 3), (4, 3), (2, 6), None),
    ],
)
def test_reshape_sizes_follow_the_axes_that_move(
    before: tuple[int, ...],
    after: tuple[int | None, ...],
    target: tuple[int, ...],
    expected: tuple[int | tuple[str, int], ...] | None,
) -> None:
    assert reshape_sizes(before, after, target, {0: 1, 1: 7}) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, True), (-0.0, True), (0.5, False), (float("nan"), False)]
)
def test_zeros_are_found_behind_nodes_that_move_numbers(value: float, expected: bool) -> None:
    filled = cast(NDArray[np.float32], np.array([value], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["a"], value=numpy_helper.from_array(filled)),
        helper.make_node("Slice", ["a", "shape", "shape"], ["b"]),
        helper.make_node("Concat", ["b", "a"], ["c"], axis=0),
        helper.make_node("Add", ["c", "c"], ["d"]),
    ]
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [3])
    tensors = tensors_of(helper.make_graph(nodes, "zeros", [shape], []))
    assert are_zeros(tensors, "c") is expected
    assert not are_zeros(tensors, "d")
    assert not are_zeros(tensors, "shape")


def test_damaged_graphs_are_refused_or_left_alone() -> None:
    """Nodes lose inputs, outputs and attributes, tensors lie about their shapes: nothing else is raised."""
    rng, refused = random.Random(0), 0
    originals = [stored(form)[1].SerializeToString() for form in DYNAMO_FORMS[:4]]
    for _ in range(300):
        model = onnx.ModelProto.FromString(rng.choice(originals))
        for _ in range(rng.randint(1, 3)):
            _damage(model.graph, rng)
        try:
            relax(model)
        except Refused:
            refused += 1
    assert 10 < refused < 290


def _damage(graph: onnx.GraphProto, rng: random.Random) -> None:
    node, kind = rng.choice(graph.node), rng.randrange(5)
    if kind == 0:
        del node.input[rng.randrange(len(node.input) + 1) :]
    elif kind == 1 and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif kind == 2:
        node.op_type = rng.choice(["Reshape", "Slice", "Gather", "Expand", "LSTM", "ConstantOfShape"])
    elif kind == 3:
        tensor = rng.choice([one for one in graph.initializer if one.dims])
        tensor.dims[0] = rng.choice([0, -1, 1, 2, 1 << 40])
    else:
        del node.output[:]
