"""The network class: lengths, state and padding."""

import pytest
import torch

from tests.training.parity import CELLS
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork, last_steps


def _network(cell: Cell, layers: int = 2) -> RecurrentNetwork:
    torch.manual_seed(1)
    return RecurrentNetwork(NetworkConfig(cell, layers, 6, 3, vocabulary=9, embedding=4)).eval()


@pytest.mark.parametrize("cell", CELLS)
def test_padding_never_reaches_outputs_or_gradients(cell: Cell) -> None:
    network, lengths = _network(cell), torch.tensor([5, 3, 4])
    tokens = torch.randint(1, 8, (3, 5))
    is_padding = torch.arange(5) >= lengths[:, None]
    losses = []
    for filler in (0, 8):
        network.zero_grad()
        hidden, _ = network(tokens.masked_fill(is_padding, filler), lengths)
        loss = network.outputs_of(last_steps(hidden, lengths)).square().mean()
        torch.autograd.backward(loss)
        losses.append(loss.item())
        gradient = network.input_layer.get_parameter("weight").grad
        assert gradient is not None
        assert not gradient[filler].any()
    assert losses[0] == losses[1]


@pytest.mark.parametrize("cell", CELLS)
def test_hidden_states_past_each_length_are_zero(cell: Cell) -> None:
    hidden, _ = _network(cell)(torch.ones(3, 5, dtype=torch.int64), torch.tensor([5, 3, 4]))
    assert hidden[0].all()
    assert not hidden[1, 3:].any()
    assert not hidden[2, 4:].any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_sequence_cut_in_two_with_its_state_equals_the_whole(cell: Cell, layers: int) -> None:
    network, tokens = _network(cell, layers), torch.randint(9, (4, 10))
    whole, state = network(tokens)
    first, between = network(tokens[:, :3])
    second, after = network(tokens[:, 3:], state=between)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-6, rtol=0)
    for found, expected in zip(after, state, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_network_without_one_kind_of_input_is_refused() -> None:
    with pytest.raises(ValueError, match="either vocabulary or features"):
        NetworkConfig("gru", 1, 4, 2, vocabulary=3, features=3, embedding=1)
    with pytest.raises(ValueError, match="needs an embedding"):
        NetworkConfig("gru", 1, 4, 2, vocabulary=3)
