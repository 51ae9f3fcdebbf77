"""Int8 weights: the same chunk cell, close to the network, and LSTM alone; here narrow ones."""

import logging
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
from training.export.quantize import is_wide, quantize
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

# Of the largest output. Rounding to 7 and 8 bits is off by 0.4 % of the largest weight and of the largest
# input; sums of such errors partly cancel.
CLOSE = 0.05


def _network(
    cell: Cell = "lstm", layers: int = 2, hidden: int = 24, seed: int = 0, *, has_tokens: bool = True
) -> RecurrentNetwork:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"vocabulary": 9, "embedding": 6} if has_tokens else {"features": 3}
    return RecurrentNetwork(NetworkConfig(cell, layers, hidden, 5, **shape)).eval()


def _session(graph: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def _run(graph: bytes, tokens: NDArray[np.int64], lengths: list[int]) -> list[NDArray[np.float32]]:
    """Outputs at every valid step, and the states after, of `_network`'s graph."""
    state = {
        f"layer{layer}.{kind}": np.zeros((len(tokens), 24), np.float32) for layer in range(2) for kind in "hc"
    }
    wanted = np.concatenate([row * tokens.shape[1] + np.arange(length) for row, length in enumerate(lengths)])
    found: list[NDArray[np.float32]] = _session(graph).run(
        None, {spec.INPUT: tokens, spec.LENGTHS: np.array(lengths, np.int32), spec.WANTED: wanted, **state}
    )
    return found


@pytest.mark.parametrize("has_tokens", [True, False])
def test_names_types_and_symbolic_axes_stay(has_tokens: bool) -> None:
    network = _network(has_tokens=has_tokens)
    before, after = _session(build_graph(network).SerializeToString()), _session(quantize(network))
    for name in ("get_inputs", "get_outputs"):
        shown = [
            [(one.name, one.type, one.shape) for one in getattr(session, name)()]
            for session in (before, after)
        ]
        assert shown[0] == shown[1]
    assert {axis for one in after.get_inputs() for axis in one.shape if isinstance(axis, str)} == {
        "batch",
        "time",
        "wanted",
    }


def test_every_recurrent_layer_has_7_bit_weights_and_is_told_the_lengths() -> None:
    model = onnx.load_from_string(quantize(_network()))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type == "DynamicQuantizeLSTM"]
    assert len(layers) == 2
    assert not any(node.op_type == "LSTM" for node in model.graph.node)
    for node in layers:
        assert node.input[4] == spec.LENGTHS
        for index in (1, 2):
            weights = constants[node.input[index]]
            assert weights.dtype == np.int8
            assert np.abs(weights.astype(int)).max() == 64
    assert constants["embedding"].dtype == constants["head.bias"].dtype == np.float32


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(1, 3),
    st.integers(8, 48),
    st.booleans(),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_outputs_are_close_to_those_of_the_network_in_any_cut(
    layers: int, hidden: int, has_tokens: bool, lengths: list[int], most: int, seed: int
) -> None:
    network = _network("lstm", layers, hidden, seed, has_tokens=has_tokens)
    inputs = [torch.randint(9, (length,)) if has_tokens else torch.randn(length, 3) for length in lengths]
    expected = [reference_outputs(network, one) for one in inputs]
    found = ChunkCell(quantize(network)).outputs(
        [one.numpy() for one in inputs], lambda row, tick: 1 + (row + tick) % most
    )
    largest = max(np.abs(one).max() for one in expected)
    assert (
        max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True)) <= CLOSE * largest
    )


def test_padding_moves_neither_outputs_nor_states() -> None:
    """To the bit, as long as the padding holds nothing that the scale of the inputs has not seen."""
    graph = quantize(_network())
    some, other = (_run(graph, np.array([[1, 2, 3, 4], [5, 6, filler, filler]]), [4, 2]) for filler in (1, 4))
    for one, another in zip(some, other, strict=True):
        np.testing.assert_array_equal(one, another)


def test_row_is_as_it_is_without_its_padding() -> None:
    network = _network()
    output, *after = _run(quantize(network), np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), [4, 2])
    with torch.no_grad():
        _, expected = network(torch.tensor([[5, 6]]))
    np.testing.assert_allclose(output[4:], reference_outputs(network, torch.tensor([5, 6])), atol=0.02)
    for found, tensor in zip(after, expected, strict=True):
        np.testing.assert_allclose(found[1:], tensor.numpy(), atol=0.02)


def test_same_network_gives_the_same_bytes() -> None:
    network = _network()
    assert quantize(network) == quantize(network)


@pytest.mark.parametrize(("hidden", "operator"), [(511, "DynamicQuantizeLSTM"), (512, "If")])
def test_layers_of_512_units_are_written_out(hidden: int, operator: str) -> None:
    network = _network(layers=1, hidden=hidden)
    model = onnx.load_from_string(quantize(network))
    assert is_wide(network.config) == (hidden == 512)
    assert operator in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells_are_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match="expected a network of lstm cells, found"):
        quantize(_network(cell))


def test_quantizing_and_running_print_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _run(quantize(_network()), np.array([[1, 2], [3, 0]]), [2, 1])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
