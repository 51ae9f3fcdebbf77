"""Adds naive Bayes to an LSTM as units that sum up what words say of a label by their counts.

A network and naive Bayes err on different texts, so that the two together err less than each (Mesnil et al.
2014 put them side by side). An LSTM unit whose input, forget and output gates stay open adds up whatever
enters it; with a word's log-count ratio (Wang & Manning 2012) as its input it is naive Bayes over words. One
such unit a label goes beside the network that was trained, and the sum is served like any other network.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.networks.network import NetworkConfig, RecurrentNetwork

# A word's count with a label begins at one (Laplace).
SMOOTHING = 1.0
# tanh bounds what a unit gives: a text's evidence is as good as linear up to about this many nats, and never
# counts for more.
LARGEST_EVIDENCE = 2.0
# Of the logits of the networks and of the counts, in their sum. These, the bound and the smoothing were
# chosen by development parts: of three splits of the reviews, whose targets are soft, and of one of MR, whose
# labels are hard and make a network surer of itself; the log loss falls on both.
NETWORK_WEIGHT = 0.8
COUNTS_WEIGHT = 0.3
# The sigmoid of it is 1 in float32.
OPEN = 20.0
LARGEST_INPUT = 0.95


def can_count(config: NetworkConfig) -> bool:
    """Return whether counting units can go beside a network: it has one layer of LSTM cells."""
    return config.cell == "lstm" and config.layers == 1


def evidence(tokens: Sequence[Tensor], targets: NDArray[np.float32], vocabulary: int) -> Tensor:
    """Return the evidence of each word for each label.

    It is the log of the word's share among the label's words, less the mean of that over the labels.

    Args:
        tokens: texts, int64 (T,) each; a word counts once a text.
        targets: float32 (N, labels), how much of each label a text is.
        vocabulary: number of token ids.
    Returns:
        float32 (vocabulary, labels), rows sum to 0.
    """
    counts = torch.full((vocabulary, targets.shape[1]), SMOOTHING)
    for text, target in zip(tokens, torch.from_numpy(targets), strict=True):
        counts[torch.from_numpy(np.unique(text.numpy()))] += target
    shares = (counts / counts.sum(dim=0)).log()
    return shares - shares.mean(dim=1, keepdim=True)


def counting_network(config: NetworkConfig, given: Tensor) -> RecurrentNetwork:
    """Return a network of one unit a label that adds up evidence.

    Args:
        config: of the network that it goes beside.
        given: each word's evidence, (vocabulary, labels).
    """
    assert can_count(config)
    labels = config.outputs
    network = RecurrentNetwork(replace(config, embedding=labels, hidden=labels))
    recurrent, head = network.recurrent, network.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        # The candidate is the tanh of what enters.
        network.get_parameter("input_layer.weight").copy_(
            (given / LARGEST_EVIDENCE).clamp(-LARGEST_INPUT, LARGEST_INPUT).atanh()
        )
        of_input, of_forget, of_candidate, of_output = range(4)  # PyTorch's order
        bias = recurrent.get_parameter("bias_ih_l0").view(4, labels)
        bias[[of_input, of_forget, of_output]] = OPEN
        recurrent.get_parameter("weight_ih_l0").view(4, labels, labels)[of_candidate] = torch.eye(labels)
        head.weight.copy_(LARGEST_EVIDENCE * torch.eye(labels))
    return network.eval()
