"""Loops over cells become graphs of one time step that, repeated, equal them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.training.convert.pytorch.networks import FEATURES, VOCABULARY, WIDTH, Loop, run_steps
from training.convert.foreign import Refused
from training.convert.pytorch import read_module

TOLERANCE = 2e-5

kinds = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(["LSTM", "GRU", "RNN"]),
        "layers": st.integers(1, 3),
        "batch_first": st.booleans(),
        "tokens": st.booleans(),
        "last": st.booleans(),
        "norm": st.booleans(),
        "start": st.sampled_from(["zeros", "learned"]),
    }
)


def sequences(loop: Loop, batch: int, steps: int) -> Tensor:
    """Data [batch, time, ...]."""
    if loop.embedding is not None:
        return torch.randint(0, VOCABULARY, (batch, steps))
    return torch.randn(batch, steps, FEATURES)


def whole(loop: Loop, data: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = loop.eval()(data if loop.batch_first else data.transpose(0, 1))
    return answer if loop.batch_first or loop.last else answer.transpose(0, 1)


@settings(max_examples=10)
@given(kinds, st.integers(0, 1000), st.integers(1, 3), st.integers(1, 12))
def test_step_repeated_equals_the_loop(kind: dict[str, object], seed: int, batch: int, steps: int) -> None:
    torch.manual_seed(seed)
    loop = Loop(**kind)  # type: ignore[arg-type]
    foreign = read_module(loop)
    data = sequences(loop, batch, steps)
    expected = whole(loop, data).numpy()
    (found,) = run_steps(foreign, data.numpy())
    rows = found[:, -1] if loop.last else found[:, :, 0]
    assert foreign.is_step
    assert rows.shape == expected.shape
    assert np.abs(rows - expected).max() <= TOLERANCE


def test_states_are_named_by_cell() -> None:
    foreign = read_module(Loop("LSTM", layers=2, start="none"))
    assert foreign.states == tuple(
        (name, f"{name}.next") for name in ("cells.0.h", "cells.0.c", "cells.1.h", "cells.1.c")
    )
    assert dict(foreign.starts) == {}
    assert [one.name for one in foreign.graph.graph.input] == ["x", *dict(foreign.states)]


@pytest.mark.parametrize(("cell", "operator"), [("LSTM", "LSTM"), ("GRU", "GRU"), ("RNN", "RNN")])
def test_cell_is_one_recurrent_node(cell: str, operator: str) -> None:
    graph = read_module(Loop(cell, layers=1)).graph.graph  # type: ignore[arg-type]
    assert [one.op_type for one in graph.node].count(operator) == 1


def test_first_state_that_is_learned_is_its_start() -> None:
    loop = Loop("GRU", layers=1, start="learned")
    assert np.array_equal(read_module(loop).starts["cells.0.h"], loop.first.detach().numpy())


@pytest.mark.parametrize("batch_first", [True, False])
def test_oracle_runs_whole_sequences(batch_first: bool) -> None:
    loop = Loop("GRU", batch_first=batch_first)
    foreign = read_module(loop)
    data = sequences(loop, 1, 9)
    assert foreign.oracle is not None
    (found,) = foreign.oracle({"x": data.numpy()})
    assert np.array_equal(found, whole(loop, data).numpy())


class OwnCell(nn.GRUCell):
    """A cell with code of its own."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002
        return super().forward(input, hx) * 0.5


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = OwnCell(FEATURES, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], WIDTH)
        for step in range(x.shape[1]):
            state = self.cell(input=x[:, step], hx=state)
        return state


def test_cell_of_an_own_class_runs_its_code() -> None:
    module = Own()
    data = torch.randn(2, 5, FEATURES)
    (found,) = run_steps(read_module(module), data.numpy())
    with torch.no_grad():
        assert np.abs(found[:, -1] - module(data).numpy()).max() <= TOLERANCE


class Twice(nn.Module):
    """Calls one cell at two places of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        one = other = torch.zeros(x.shape[0], FEATURES)
        for step in range(x.shape[1]):
            one = self.cell(x[:, step], one)
            other = self.cell(one, other)
        return other


class Beside(nn.Module):
    """A recurrent layer before a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True)
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.recurrent(x)[0], torch.zeros(x.shape[0], WIDTH)
        for step in range(x.shape[1]):
            state = self.cell(y[:, step], state)
        return state


class Scaled(Own):
    """Takes another input beside the sequence."""

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * scale


@pytest.mark.parametrize(
    ("module", "examples", "reason"),
    [
        (Loop("GRU", feedback=True), None, "expected one time step, repeated, to be the module"),
        (Loop("LSTM", backward=True), None, "expected one time step, repeated, to be the module"),
        (Loop("GRU", start="computed"), None, "expected a first state that is the same for every sequence"),
        (Twice(), None, "cell 'cell': expected one call a time step, found 10 calls in 5 time steps"),
        (Beside(), None, "found the layer 'recurrent' beside the cell 'cell'"),
        (Scaled(), (torch.randn(2, 7, FEATURES), torch.ones(2, 1)), "found scale beside"),
    ],
    ids=["feedback", "backward", "computed start", "two places", "layer beside", "another input"],
)
def test_loops_that_are_no_step_are_refused(module: nn.Module, examples: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_module(module, examples)  # type: ignore[arg-type]


class Few(nn.Module):
    """Calls its cell a fixed number of times, whatever the length."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True)
        self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = state = self.recurrent(x)[0][:, -1]
        for _ in range(3):
            state = self.cell(y, state)
        answer: Tensor = state
        return answer


def test_cell_called_a_fixed_number_of_times_is_no_loop() -> None:
    assert not read_module(Few()).is_step
