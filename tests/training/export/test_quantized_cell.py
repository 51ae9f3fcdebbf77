"""Int8 weights of wide LSTMs: close to the network, and the same bits in any batch and cut."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from service.contract import spec
from training.export.chunks import ChunkCell
from training.export.graph import build_graph, reference_outputs
from training.export.quantized_cell import write_cell
from training.networks.network import NetworkConfig, RecurrentNetwork

# Of the largest output. Rounding to 7 and 8 bits is off by 0.4 % of the largest weight and of the largest
# state; sums of such errors partly cancel.
CLOSE = 0.05
WIDTH = 24
# What enters the first layer: tokens with a table of products, rounded embeddings, features, and features
# behind a linear layer.
INPUTS: dict[str, dict[str, Any]] = {
    "small vocabulary": {"vocabulary": 9, "embedding": 6},
    "large vocabulary": {"vocabulary": 40, "embedding": 6},
    "features": {"features": 3},
    "linear features": {"features": 3, "embedding": 5},
}


def network_of(kind: str, layers: int = 2, outputs: int = 5, seed: int = 0) -> RecurrentNetwork:
    torch.manual_seed(seed)
    return RecurrentNetwork(NetworkConfig("lstm", layers, WIDTH, outputs, **INPUTS[kind])).eval()


def sequences_of(network: RecurrentNetwork, lengths: list[int]) -> list[NDArray[Any]]:
    size = network.config.vocabulary
    return [
        (torch.randint(size, (length,)) if size else torch.randn(length, 3)).numpy() for length in lengths
    ]


@pytest.mark.parametrize("kind", INPUTS)
def test_names_types_and_symbolic_axes_are_those_of_float32(kind: str) -> None:
    network = network_of(kind)
    graphs = (build_graph(network).SerializeToString(), write_cell(network))
    first, second = (ort.InferenceSession(one, providers=["CPUExecutionProvider"]) for one in graphs)
    for name in ("get_inputs", "get_outputs"):
        expected, found = (
            [(one.name, one.type, one.shape) for one in getattr(session, name)()]
            for session in (first, second)
        )
        assert found == expected


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(INPUTS)),
    st.integers(1, 3),
    st.sampled_from([0, 5]),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_outputs_are_close_to_those_of_the_network_in_any_cut(
    kind: str, layers: int, outputs: int, lengths: list[int], most: int, seed: int
) -> None:
    network = network_of(kind, layers, outputs, seed)
    inputs = sequences_of(network, lengths)
    expected = [reference_outputs(network, torch.from_numpy(one)) for one in inputs]
    found = ChunkCell(write_cell(network)).outputs(inputs, lambda row, tick: 1 + (row + tick) % most)
    largest = max(np.abs(one).max() for one in expected)
    error = max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True))
    assert error <= CLOSE * largest


@pytest.mark.parametrize("kind", [kind for kind in INPUTS if "vocabulary" in kind])
def test_a_row_has_the_same_bits_alone_and_beside_others_in_any_cut(kind: str) -> None:
    network = network_of(kind)
    cell = ChunkCell(write_cell(network))
    inputs = sequences_of(network, [1 + index % 9 for index in range(37)])
    alone = [cell.outputs([one], lambda row, tick: 1)[0] for one in inputs]  # noqa: ARG005
    for most in (1, 4, 9):
        together = cell.outputs(inputs, lambda row, tick, most=most: 1 + (row + tick) % most)  # type: ignore[misc]
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", INPUTS)
def test_a_row_that_has_ended_keeps_its_states(kind: str) -> None:
    network = network_of(kind)
    session = ort.InferenceSession(write_cell(network), providers=["CPUExecutionProvider"])
    [row] = sequences_of(network, [3])
    names = network.config.state_names
    state = {name: np.full((1, WIDTH), 0.25, np.float32) for name in names}

    def states_after(inputs: NDArray[Any]) -> list[Any]:
        fed = {spec.INPUT: inputs[None], spec.LENGTHS: np.array([2], np.int32), spec.WANTED: np.array([1])}
        found: list[Any] = session.run([name + spec.NEXT_SUFFIX for name in names], fed | state)
        return found

    for found, expected in zip(states_after(row), states_after(row[:2]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_weights_have_7_bits_and_both_subgraphs_have_the_same() -> None:
    model = onnx.load_from_string(write_cell(network_of("small vocabulary")))
    [branch] = [node for node in model.graph.node if node.op_type == "If"]
    step, steps = sorted((one.g for one in branch.attribute), key=lambda graph: graph.name, reverse=True)
    [scan] = [node for node in steps.node if node.op_type == "Scan"]
    [turn] = [one.g for one in scan.attribute if one.name == "body"]
    first, second = (
        {
            tensor.name.partition(".")[2]: numpy_helper.to_array(tensor)
            for tensor in graph.initializer
            if tensor.name.endswith(".weight")
        }
        for graph in (step, turn)
    )
    assert first.keys() == second.keys()
    assert len(first) == 8
    for name, weights in first.items():
        np.testing.assert_array_equal(weights, second[name])
        assert weights.dtype == np.int8
        assert np.abs(weights.astype(int)).max() == 64


def test_same_network_gives_the_same_bytes() -> None:
    network = network_of("small vocabulary")
    assert write_cell(network) == write_cell(network)
