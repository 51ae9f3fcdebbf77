"""training.export.generation: generation graphs have the bits of the chunk cell, or there are none."""

from dataclasses import replace

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from service.contract import spec
from tests import tiny
from training.export.external_weights import ExternalWeights
from training.export.generation import generation_graph
from training.export.generation_graph import StateTensor, build_generation_graph, cell_body
from training.export.generation_lstm import has_lstm_body
from training.export.graph import build_graph
from training.networks.network import CELLS, Cell, NetworkConfig, RecurrentNetwork


def states_of(config: NetworkConfig) -> list[StateTensor]:
    return [StateTensor(name, name + spec.NEXT_SUFFIX, config.hidden) for name in config.state_names]


def graph_of(network: RecurrentNetwork, config: NetworkConfig | None) -> bytes | None:
    data = build_graph(network).SerializeToString()
    return generation_graph(data, "model.onnx", states_of(network.config), network.config.outputs, config)


def operators_of(graph: bytes) -> set[str]:
    """Return the operators of the nodes inside the Scan."""
    [scan] = [node for node in onnx.load_from_string(graph).graph.node if node.op_type == "Scan"]
    return {node.op_type for one in scan.attribute if one.name == "body" for node in one.g.node}


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_a_generation_graph(cell: Cell) -> None:
    network = tiny.generator_network(cell)
    graph = graph_of(network, network.config)
    assert graph is not None
    assert ("LSTM" in operators_of(graph)) is False
    assert ({"RNN", "GRU"} & operators_of(graph) != set()) is (cell != "lstm")


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3),
    hidden=st.integers(1, 70),
    vocabulary=st.integers(2, 70),
    embedding=st.integers(1, 300),
)
def test_any_size_of_lstm_has_the_bits_of_the_node(
    layers: int, hidden: int, vocabulary: int, embedding: int
) -> None:
    """In the one form or the other: `generation_graph` returns none whose bits differ."""
    config = NetworkConfig("lstm", layers, hidden, vocabulary, vocabulary=vocabulary, embedding=embedding)
    assert graph_of(tiny.network(config), config) is not None


def test_graph_of_other_bits_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.generator_network()
    monkeypatch.setattr("training.export.generation_lstm._Writer._bias", _bias_of_the_first_half)
    graph = graph_of(network, network.config)
    assert graph is not None
    assert "LSTM" in operators_of(graph)  # the nodes of the chunk cell itself


def _bias_of_the_first_half(self: object, layer: int) -> str:
    both = onnx.numpy_helper.to_array(self._weights[f"layer{layer}.B"])[0]  # type: ignore[attr-defined]
    name: str = self._builder.constant(f"layer{layer}.bias", both[: len(both) // 2])  # type: ignore[attr-defined]
    return name


def test_large_vocabulary_has_no_table() -> None:
    config = NetworkConfig("lstm", 1, 128, 50_000, vocabulary=50_000, embedding=8)
    assert not has_lstm_body(config)
    assert has_lstm_body(replace(config, vocabulary=64, outputs=64))


def test_old_opset_has_no_generation_graph() -> None:
    network = tiny.generator_network()
    made = build_graph(network)
    data = made.SerializeToString()
    body = cell_body(data, "model.onnx", states_of(network.config))
    made.opset_import[0].version = 12
    with pytest.raises(ValueError, match="expected opset 13 or newer, found 12"):
        build_generation_graph(made, body, network.config.outputs)


def test_name_of_the_generation_graph_in_a_chunk_cell_is_refused() -> None:
    network = tiny.generator_network()
    made = build_graph(network)
    made.graph.node[0].output[0] = "generation.tokens"
    body = cell_body(made.SerializeToString(), "model.onnx", states_of(network.config))
    with pytest.raises(ValueError, match=r"expected no name that starts with generation\."):
        build_generation_graph(made, body, network.config.outputs)


def test_external_tensor_is_where_its_bytes_are() -> None:
    data = build_graph(tiny.generator_network()).SerializeToString()
    for given_tensor in onnx.load_from_string(data).graph.initializer:
        made = ExternalWeights(data, "model.onnx").tensor(given_tensor, "again", [given_tensor.ByteSize()])
        if made.data_location != TensorProto.EXTERNAL:
            assert made.raw_data == given_tensor.raw_data
            assert len(made.raw_data) < 1024
            continue
        place = {one.key: one.value for one in made.external_data}
        start, length = int(place["offset"]), int(place["length"])
        assert data[start : start + length] == given_tensor.raw_data
