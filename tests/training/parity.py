"""One network through PyTorch and, in chunks, through onnxruntime; how far the two are apart.

python -m tests.training.parity       # largest differences by cell, over random and large networks
"""

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.contract import spec
from training.export.graph import build_graph
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")


@dataclass(frozen=True, slots=True)
class Case:
    """A network and what to run through it.

    Attributes:
        config: the network.
        lengths: valid steps of each row.
        chunk: steps computed at a time.
        has_state: rows start from random states instead of zeros.
        seed: of weights, inputs and states.
    """

    config: NetworkConfig
    lengths: tuple[int, ...]
    chunk: int
    has_state: bool
    seed: int


def session_of(network: RecurrentNetwork) -> ort.InferenceSession:
    return ort.InferenceSession(build_graph(network).SerializeToString(), providers=["CPUExecutionProvider"])


def largest_difference(case: Case) -> float:
    """Over the outputs at every valid step and all states after the last one."""
    torch.manual_seed(case.seed)
    config = case.config
    network = RecurrentNetwork(config).eval()
    lengths = torch.tensor(case.lengths)
    longest = max(case.lengths)
    inputs = (
        torch.randint(config.vocabulary, (len(lengths), longest))
        if config.vocabulary
        else torch.randn(len(lengths), longest, config.features)
    )
    state = [torch.randn(len(lengths), config.hidden) * case.has_state for _ in config.state_names]
    with torch.no_grad():
        hidden, after = network(inputs, lengths, state)
        expected = network.outputs_of(hidden)
    outputs, states = _in_chunks(
        session_of(network),
        config,
        inputs,
        np.array(case.lengths),
        [tensor.numpy() for tensor in state],
        case.chunk,
    )
    differences = [
        np.abs(outputs[row, :length] - expected[row, :length].numpy()).max()
        for row, length in enumerate(case.lengths)
    ]
    differences += [np.abs(found - tensor.numpy()).max() for found, tensor in zip(states, after, strict=True)]
    return float(max(differences))


def _in_chunks(
    session: ort.InferenceSession,
    config: NetworkConfig,
    inputs: Tensor,
    lengths: NDArray[np.int64],
    states: list[NDArray[np.float32]],
    chunk: int,
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Rows leave the batch when they end; outputs (B, T, outputs), and each row's states after its last
    step.
    """
    outputs = np.zeros((*inputs.shape[:2], config.output_size), np.float32)
    states = [tensor.copy() for tensor in states]
    for start in range(0, int(lengths.max()), chunk):
        rows = np.flatnonzero(lengths > start)
        piece = inputs.numpy()[rows, start : start + chunk]
        valid = np.minimum(lengths[rows] - start, piece.shape[1])
        wanted = np.concatenate([row * piece.shape[1] + np.arange(count) for row, count in enumerate(valid)])
        named = {name: tensor[rows] for name, tensor in zip(config.state_names, states, strict=True)}
        found, *after = session.run(
            None, {spec.INPUT: piece, spec.LENGTHS: valid.astype(np.int32), spec.WANTED: wanted, **named}
        )
        for tensor, new in zip(states, after, strict=True):
            tensor[rows] = new
        outputs[rows[wanted // piece.shape[1]], start + wanted % piece.shape[1]] = found
    return outputs, states


def large_case(cell: Cell) -> Case:
    """As large as what ships: the sizes of the character model, long rows."""
    return Case(NetworkConfig(cell, 2, 512, 64, vocabulary=64, embedding=128), (64, 1, 33, 17), 4, False, 0)


def random_case(cell: Cell, seed: int) -> Case:
    generator = np.random.default_rng(seed)
    layers, hidden, outputs, embedding = (
        int(generator.integers(*bounds)) for bounds in ((1, 4), (1, 65), (0, 8), (0, 9))
    )
    size = int(generator.integers(1, 9))
    config = (
        NetworkConfig(cell, layers, hidden, outputs, vocabulary=size, embedding=embedding + 1)
        if generator.random() < 0.5
        else NetworkConfig(cell, layers, hidden, outputs, features=size, embedding=embedding)
    )
    lengths = tuple(int(length) for length in generator.integers(1, 13, generator.integers(1, 7)))
    return Case(config, lengths, int(generator.integers(1, 13)), bool(generator.random() < 0.5), seed)


if __name__ == "__main__":
    for one in CELLS:
        small = max(largest_difference(random_case(one, seed)) for seed in range(200))
        print(
            f"{one}: 200 random networks {small:.1e}, "
            f"2 x 512 over 64 steps {largest_difference(large_case(one)):.1e}"
        )
