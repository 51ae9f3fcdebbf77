"""The exported measure of volatility computes what PyTorch computes, whatever shares a batch or a chunk."""

import numpy as np
import pytest
import torch

from tests.training.parity import CELLS
from training.export.chunks import ChunkCell, Take
from training.export.export import EXPORT_TOLERANCE, largest_error
from training.export.graph import build_graph, reference_outputs
from training.export.quantize import WIDE, quantize
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork
from training.networks.volatility import Volatility

LENGTHS = (1, 2, 7, 8, 20, 33)


def _network(cell: Cell, hidden: int = 9, embedding: int = 0) -> RecurrentNetwork:
    torch.manual_seed(0)
    volatility = Volatility(measured=(1, 2), mean_squares=(0.7, 1.4), divided=(0, 1), decay=0.9, prior=2.0)
    config = NetworkConfig(cell, 1, hidden, 6, features=3, embedding=embedding, volatility=volatility)
    return RecurrentNetwork(config).eval()


def _examples() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(length, 3, generator=generator) for length in LENGTHS]


def _in_chunks_of(steps: int) -> Take:
    return lambda row, tick: steps  # noqa: ARG005


@pytest.mark.parametrize("embedding", [0, 4])
@pytest.mark.parametrize("cell", CELLS)
def test_scaled_network_equals_pytorch_in_any_batch_and_chunking(cell: Cell, embedding: int) -> None:
    network = _network(cell, embedding=embedding)
    cell_of = ChunkCell(build_graph(network).SerializeToString())
    assert largest_error(cell_of, network, _examples()) <= EXPORT_TOLERANCE


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_bits_of_a_row_do_not_depend_on_what_shares_its_batch(cell: Cell) -> None:
    graph = ChunkCell(build_graph(_network(cell)).SerializeToString())
    inputs = [example.numpy() for example in _examples()]
    for steps in (1, 4, 64):
        take = _in_chunks_of(steps)
        together = graph.outputs(inputs, take)
        for one, expected in zip(inputs, together, strict=True):
            assert np.array_equal(graph.outputs([one], take)[0], expected)


@pytest.mark.parametrize("hidden", [8, WIDE])
def test_int8_weights_keep_the_measure_exact(hidden: int) -> None:
    """Outputs of a network whose head gives its bias alone are that bias times the deviation."""
    network = _network("lstm", hidden)
    with torch.no_grad():
        network.head.get_parameter("weight").zero_()
    assert largest_error(ChunkCell(quantize(network)), network, _examples()) <= EXPORT_TOLERANCE


@pytest.mark.parametrize("hidden", [8, WIDE])
def test_int8_weights_see_divided_features(hidden: int) -> None:
    network = _network("lstm", hidden)
    largest = max(float(np.abs(reference_outputs(network, example)).max()) for example in _examples())
    assert largest_error(ChunkCell(quantize(network)), network, _examples()) <= 0.03 * largest
