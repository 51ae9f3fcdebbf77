"""training.recipes.mixing: the n-gram is mixed in where it helps on the development part, and only there."""

import numpy as np
import pytest
import torch

from training.networks.mixture import MixedNetwork, fitted_weights
from training.networks.network import NetworkConfig, RecurrentNetwork
from training.recipes.mixing import mix
from training.recipes.text_losses import mean_loss

SIZE = 8


def network_that_says(logits: torch.Tensor) -> RecurrentNetwork:
    """Return a network that gives every token the same logits after whatever."""
    torch.manual_seed(0)
    made = RecurrentNetwork(NetworkConfig("lstm", 1, 4, SIZE, vocabulary=SIZE, embedding=4)).eval()
    with torch.no_grad():
        made.head.get_parameter("weight").zero_()
        made.head.get_parameter("bias").copy_(logits)
    return made


def repeated(length: int) -> torch.Tensor:
    return torch.arange(length) % SIZE


def random(length: int, seed: int) -> torch.Tensor:
    return torch.randint(SIZE, (length,), generator=torch.Generator().manual_seed(seed))


def test_ngram_is_mixed_in_where_the_network_knows_less() -> None:
    network = network_that_says(torch.zeros(SIZE))
    found = mix(network, repeated(3000), repeated(600))
    assert found.is_mixed
    assert isinstance(found.network, MixedNetwork)
    gained = mean_loss(network, repeated(500), "cpu") - mean_loss(found.network, repeated(500), "cpu")
    assert gained == pytest.approx(found.gain, abs=0.2)
    assert "mixed in" in str(found)


def test_ngram_is_left_out_where_chance_alone_rules() -> None:
    network = network_that_says(torch.zeros(SIZE))
    found = mix(network, random(3000, 0), random(600, 1))
    assert found.network is network
    assert "left out" in str(found)


def test_shortest_development_part_is_enough_to_decide() -> None:
    network = network_that_says(torch.zeros(SIZE))
    assert mix(network, repeated(900), repeated(27)).is_mixed


def test_weights_are_those_that_drew_the_tokens() -> None:
    random = np.random.default_rng(0)
    kind = random.integers(2, size=20_000)
    sure = np.where(random.random(20_000) < np.array([0.8, 0.2])[kind], 1.0, 0.0)
    network, ngram = np.where(sure, 0.9, 0.01), np.where(sure, 0.01, 0.9)
    weights = fitted_weights(network, ngram, kind, 3)
    # A component that never errs would have the weights of the draws.
    assert weights[:2] == pytest.approx([0.8, 0.2], abs=0.02)
    assert weights[2] == pytest.approx((0.8 + 0.2) / 2, abs=0.02)  # never seen: that of all
