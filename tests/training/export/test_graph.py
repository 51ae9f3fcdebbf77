"""The exported graph computes what PyTorch computes, however rows are batched and cut."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import spec
from tests.training.parity import CELLS, Case, large_case, largest_difference, session_of
from training.export.graph import build_graph
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

TOLERANCE = 1e-5


@st.composite
def cases(draw: st.DrawFn, cell: Cell) -> Case:
    size, embedding = draw(st.integers(1, 9)), draw(st.integers(0, 9))
    shape: dict[str, Any] = {
        "layers": draw(st.integers(1, 3)),
        "hidden": draw(st.integers(1, 40)),
        "outputs": draw(st.integers(0, 7)),
    }
    config = (
        NetworkConfig(cell, **shape, vocabulary=size, embedding=embedding + 1)
        if draw(st.booleans())
        else NetworkConfig(cell, **shape, features=size, embedding=embedding)
    )
    lengths = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=6)))
    return Case(config, lengths, draw(st.integers(1, 12)), draw(st.booleans()), draw(st.integers(0, 1000)))


@pytest.mark.parametrize("cell", CELLS)
def test_any_network_in_any_batch_and_chunking_equals_pytorch(cell: Cell) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(cases(cell))
    def check(case: Case) -> None:
        assert largest_difference(case) <= TOLERANCE

    check()


@pytest.mark.parametrize("cell", CELLS)
def test_network_of_the_shipped_size_equals_pytorch(cell: Cell) -> None:
    assert largest_difference(large_case(cell)) <= TOLERANCE


@pytest.mark.parametrize("cell", CELLS)
def test_row_without_wanted_output_still_moves_its_state(cell: Cell) -> None:
    network = RecurrentNetwork(NetworkConfig(cell, 2, 5, 3, vocabulary=4, embedding=2)).eval()
    tokens, lengths = torch.tensor([[1, 2, 3], [3, 0, 0]]), torch.tensor([3, 1])
    with torch.no_grad():
        _, after = network(tokens, lengths)
    zeros = {name: np.zeros((2, 5), np.float32) for name in network.config.state_names}
    feeds = {
        spec.INPUT: tokens.numpy(),
        spec.LENGTHS: lengths.numpy().astype(np.int32),
        spec.WANTED: np.zeros(0, np.int64),
        **zeros,
    }
    output, *states = session_of(network).run(None, feeds)
    assert output.shape == (0, 3)
    for found, expected in zip(states, after, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("cell", CELLS)
def test_loading_and_running_any_shape_warns_of_nothing(
    cell: Cell, capfd: pytest.CaptureFixture[str]
) -> None:
    for config in (
        NetworkConfig(cell, 3, 4, 0, vocabulary=5, embedding=2),
        NetworkConfig(cell, 1, 4, 2, features=3, embedding=2),
    ):
        _run_many_shapes(build_graph(RecurrentNetwork(config)), config)
    assert capfd.readouterr() == ("", "")


def test_a_warning_of_onnxruntime_would_be_seen(capfd: pytest.CaptureFixture[str]) -> None:
    """Without this, the test above could pass because nothing was captured."""
    config = NetworkConfig("gru", 1, 4, 2, features=3)
    graph = build_graph(RecurrentNetwork(config))
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 77
    _run_many_shapes(graph, config)
    assert "does not match actual shape" in capfd.readouterr().err


def _run_many_shapes(graph: onnx.ModelProto, config: NetworkConfig) -> None:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch, time, wanted in ((1, 1, 1), (3, 4, 0), (2, 8, 5), (7, 1, 7), (1, 16, 0), (1, 1, 1)):
        inputs = (
            np.zeros((batch, time), np.int64)
            if config.vocabulary
            else np.zeros((batch, time, config.features), np.float32)
        )
        states = {name: np.zeros((batch, config.hidden), np.float32) for name in config.state_names}
        lengths = np.arange(batch, dtype=np.int32) % time + 1
        session.run(
            None, {spec.INPUT: inputs, spec.LENGTHS: lengths, spec.WANTED: np.arange(wanted), **states}
        )


@pytest.mark.parametrize("cell", CELLS)
def test_edges_of_the_graph_are_those_of_the_contract(cell: Cell) -> None:
    graph = build_graph(RecurrentNetwork(NetworkConfig(cell, 2, 4, 3, vocabulary=5, embedding=2))).graph

    def edges(values: object) -> dict[str, tuple[int, list[str | int]]]:
        return {
            value.name: (
                value.type.tensor_type.elem_type,
                [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
            )
            for value in values  # type: ignore[attr-defined]
        }

    kinds = ("h", "c") if cell == "lstm" else ("h",)
    states = [f"layer{layer}.{kind}" for layer in range(2) for kind in kinds]
    state_shape = (onnx.TensorProto.FLOAT, ["batch", 4])
    assert edges(graph.input) == {
        "input": (onnx.TensorProto.INT64, ["batch", "time"]),
        "lengths": (onnx.TensorProto.INT32, ["batch"]),
        **dict.fromkeys(states, state_shape),
        "wanted": (onnx.TensorProto.INT64, ["wanted"]),
    }
    assert edges(graph.output) == {
        "output": (onnx.TensorProto.FLOAT, ["wanted", 3]),
        **{f"{name}.next": state_shape for name in states},
    }
