"""Compares the exported graphs with PyTorch: each example alone, all in one batch, cut and padded.

Examples are whole inputs of the network. PyTorch computes each of them alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.contract import spec
from training.export.chunks import ChunkCell, Take
from training.networks.sequences import SequenceNetwork

# How examples are cut when they are compared: into chunks of so many steps, whole, and unequally.
_CHUNKS = (1, 3, 8)
_UNEQUAL = 3

Outputs = list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Example:
    """One input of a network, and how a caller may say it.

    Attributes:
        inputs: int64 (T,) or float32 (T, F), what the network gets.
        text: a text that preprocessing turns into `inputs`; None: there is none.
        values: rows that the columns turn into `inputs`, (T, F); None: they are the inputs themselves.
        initial: inputs of the init graph by name, float32 (width,).
        source: what the encoder reads, int64 (S,) or float32 (S, F); None: there is no encoder.
        source_text: a text that preprocessing turns into `source`; None: there is none.
        source_values: rows that the columns turn into `source`, (S, F); None: they are the source itself.
    """

    inputs: Tensor
    text: str | None = None
    values: NDArray[np.float64] | None = None
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    source: Tensor | None = None
    source_text: str | None = None
    source_values: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Graphs:
    """The serialized graphs of a version; `init` is that of the first states, where there is one."""

    main: bytes
    init: bytes | None = None


def reference(network: SequenceNetwork, example: Example) -> NDArray[np.float32]:
    """Return what PyTorch computes for an example alone: float32 (T, outputs), or (1, outputs) if pooled."""
    network.eval()
    with torch.no_grad():
        outputs, _ = network(example.inputs[None], state=_first_state(network, example))
    values: NDArray[np.float32] = outputs.reshape(-1, outputs.shape[-1]).numpy()
    return values


def first_rows(network: SequenceNetwork) -> dict[str, NDArray[np.float32]]:
    """Return the constant states of a chunk cell at the start of a sequence by name, float32 (size,)."""
    with torch.no_grad():
        state = network.first_state(1)
    return {
        name: tensor[0].detach().clone().numpy()
        for (name, _), tensor in zip(network.config.states, state, strict=True)
    }


def _first_state(network: SequenceNetwork, example: Example) -> list[Tensor] | None:
    if network.config.kind == "whole":
        return None
    with torch.no_grad():
        source = None if example.source is None else example.source[None]
        return network.first_state(1, {name: row[None] for name, row in example.initial.items()}, source)


def largest_error(
    network: SequenceNetwork, graphs: Graphs, padding: spec.Padding, examples: Sequence[Example]
) -> float:
    """Return the largest absolute difference between onnxruntime and PyTorch, NaN if there is one.

    Args:
        network: the network, in any mode.
        graphs: its graphs.
        padding: of a whole network: whether rows of different lengths may share a batch.
        examples: inputs of several lengths.
    """
    expected = [reference(network, example) for example in examples]
    found = (
        _in_chunks(graphs, network, examples)
        if network.config.kind == "chunk"
        else _whole(graphs.main, padding, examples)
    )
    # Not max(): it passes over NaN.
    return float(
        np.max(
            [
                np.abs(one - other).max()
                for outputs in found
                for one, other in zip(expected, outputs, strict=True)
            ]
        )
    )


def _in_chunks(graphs: Graphs, network: SequenceNetwork, examples: Sequence[Example]) -> list[Outputs]:
    """Run a chunk cell: each example alone, then all in equal and in unequal chunks."""
    cell, inputs = ChunkCell(graphs.main), [example.inputs.numpy() for example in examples]
    start = [
        first_rows(network) if graphs.init is None else _init_rows(graphs.init, network, example)
        for example in examples
    ]
    longest = max(map(len, inputs))
    alone = [
        cell.outputs([one], _chunks_of(longest), [row])[0] for one, row in zip(inputs, start, strict=True)
    ]
    ways: list[Take] = [*map(_chunks_of, (*_CHUNKS, longest)), lambda row, tick: 1 + (row + tick) % _UNEQUAL]
    return [alone, *(cell.outputs(inputs, take, start) for take in ways)]


def _chunks_of(steps: int) -> Take:
    return lambda row, tick: steps  # noqa: ARG005


def _init_rows(init: bytes, network: SequenceNetwork, example: Example) -> dict[str, NDArray[np.float32]]:
    session = ort.InferenceSession(init, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    given = {name: row[None].numpy() for name, row in example.initial.items()}
    if example.source is not None:
        given[spec.SOURCE] = example.source[None].numpy()
    found = session.run(names, given)
    zeros = {name: np.zeros(size, np.float32) for name, size in network.config.states}
    return zeros | {name: rows[0] for name, rows in zip(names, found, strict=True)}


def _whole(graph: bytes, padding: spec.Padding, examples: Sequence[Example]) -> list[Outputs]:
    """Run a whole network: each example alone, then all padded with other numbers behind their ends."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(inputs: NDArray[Any], lengths: NDArray[np.int32]) -> Outputs:
        feeds = {spec.INPUT: inputs} | ({spec.LENGTHS: lengths} if padding == "lengths" else {})
        (output,) = session.run([spec.OUTPUT], feeds)
        rows = zip(output, lengths, strict=True)
        return [row[None] if row.ndim == 1 else row[:length] for row, length in rows]

    inputs = [example.inputs.numpy() for example in examples]
    alone = [run(one[None], np.array([len(one)], np.int32))[0] for one in inputs]
    if padding == "none":
        return [alone]
    lengths = np.array(list(map(len, inputs)), np.int32)
    padded = np.stack([np.resize(one[::-1], (lengths.max() + 2, *one.shape[1:])) for one in inputs])
    for row, one in zip(padded, inputs, strict=True):
        row[: len(one)] = one
    return [alone, run(padded, lengths)]
