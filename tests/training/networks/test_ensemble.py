"""Networks side by side: the mean of their outputs, in PyTorch and as exported."""

import pytest
import torch

from training.export.chunks import ChunkCell
from training.export.graph import build_graph
from training.loop.fit import build_network
from training.networks.ensemble import side_by_side
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork


def _members(cell: Cell, layers: int, count: int = 3) -> list[RecurrentNetwork]:
    config = NetworkConfig(cell, layers, 5, 2, vocabulary=11, embedding=3, dropout=0.5, input_dropout=0.5)
    return [build_network(config, seed, "cpu").eval() for seed in range(count)]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_output_is_the_mean_of_the_members_outputs(cell: Cell, layers: int) -> None:
    members, tokens = _members(cell, layers), torch.randint(11, (4, 7))
    joined = side_by_side(members)
    with torch.no_grad():
        expected = torch.stack([member.outputs_of(member(tokens)[0]) for member in members]).mean(dim=0)
        torch.testing.assert_close(joined.outputs_of(joined(tokens)[0]), expected, atol=1e-6, rtol=0)
        (served,) = ChunkCell(build_graph(joined).SerializeToString()).served([tokens[0].numpy()])
        torch.testing.assert_close(torch.from_numpy(served[-1]), expected[0, -1], atol=1e-5, rtol=0)


def test_one_alone_stays_itself() -> None:
    (member,) = _members("lstm", 1, 1)
    assert side_by_side([member]) is member
