"""PyTorch without a server: packed sequences, one thread, batches sorted by length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from training.networks.network import RecurrentNetwork

ROWS = 32


def classify(network: RecurrentNetwork, inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The head's output at each sequence's last step, float32 (N, outputs), in the order of the inputs."""
    order = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
    answers = np.empty((len(inputs), network.config.output_size), np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            answers[chosen] = _batch(network, [torch.from_numpy(inputs[index]) for index in chosen]).numpy()
    return answers


def _batch(network: RecurrentNetwork, tokens: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(one) for one in tokens])
    entered = network.input_layer(pad_sequence(tokens, batch_first=True))  # (B, T, E)
    packed = pack_padded_sequence(entered, lengths, batch_first=True, enforce_sorted=False)
    _, after = network.recurrent(packed)
    # The state after each row's last valid step, (L, B, H): no need to unpack the steps before.
    last = after[0][-1] if network.config.cell == "lstm" else after[-1]
    return network.outputs_of(last)
