"""Measures the losses of language models, token by token, beside an n-gram's."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from training.export.chunks import SERVED_ROWS, ChunkCell
from training.export.gate import INT8_KEY, Gate
from training.networks.network import RecurrentNetwork, State
from training.recipes.baselines import witten_bell
from training.recipes.chance import Floats
from training.recipes.mixing import ORDER
from training.recipes.report import Contender

NGRAM = ORDER
# Characters that the n-gram counts at most, and those of the held-out part that it is asked about at once:
# its tables take a hundred bytes a character.
NGRAM_TEXT = 5_000_000
STRETCH = 1_000_000
# Losses of neighbouring characters are alike; chance is judged by blocks of so many.
CHARACTERS_A_BLOCK = 1000
# Tokens that a graph is asked about at once, and the most numbers that it answers with: half of them are of
# the leads.
SERVED_STRETCH = 1 << 17
SERVED_LOGITS = 1 << 25
# Tokens that a row reads before those that count, where rows read one text side by side: after them, the
# plays' loss is that of one row which reads everything, within 1e-5 nats.
LEAD = 256
INT8_COST = 0.01


def mean_loss(network: RecurrentNetwork, ids: Tensor, device: str, piece: int = 2000) -> float:
    """Return the mean of `losses_of`."""
    return float(losses_of(network, ids, device, piece).double().mean())


def losses_of(network: RecurrentNetwork, ids: Tensor, device: str, piece: int = 2000) -> Tensor:
    """Return the nats of each of tokens 2..N given those before: float32 (N - 1,), on the CPU.

    The state is carried from the first token to the last.
    """
    state: State | None = None
    found = []
    with torch.no_grad():
        for start in range(0, len(ids) - 1, piece):
            inputs = ids[start : min(start + piece, len(ids) - 1)].to(device, torch.long)
            targets = ids[start + 1 : start + 1 + len(inputs)].to(device, torch.long)
            hidden, state = network(inputs[None], state=state)
            found.append(cross_entropy(network.outputs_of(hidden)[0], targets, reduction="none").cpu())
    return torch.cat(found)


def served_losses(cell: ChunkCell, ids: Tensor, size: int) -> Floats:
    """Return `losses_of` of a graph as it is served: float64 (N - 1,).

    A long text is read in stretches, each after a lead of what comes before it, so that memory holds the
    logits of one stretch.

    Args:
        cell: the graph.
        ids: (N,) of the text.
        size: number of different tokens.
    """
    length = max(LEAD, min(SERVED_STRETCH, SERVED_LOGITS // size))
    losses = []
    for start in range(0, len(ids) - 1, length):
        lead = min(LEAD, start)
        losses.append(_stretch_losses(cell, ids[start - lead : start + length + 1])[lead:])
    return torch.cat(losses).numpy()


def _stretch_losses(cell: ChunkCell, ids: Tensor) -> Tensor:
    """Return nats of each of tokens 2..N: float64 (N - 1,). The text is cut into rows side by side, each with
    a lead of what comes before it.
    """
    text = ids.numpy().astype(np.int64)
    size = len(text) - 1
    rows = min(SERVED_ROWS, max(1, size // LEAD))
    starts = [size * row // rows for row in range(rows + 1)]
    leads = [min(LEAD, start) for start in starts[:-1]]
    inputs = [text[start - lead : end] for lead, (start, end) in zip(leads, pairwise(starts), strict=True)]
    logits = torch.from_numpy(
        np.concatenate([outputs[lead:] for lead, outputs in zip(leads, cell.served(inputs), strict=True)])
    )
    return cross_entropy(logits.double(), ids[1:].long(), reduction="none")


def ngram_losses(counted: NDArray[np.int64], held_out: NDArray[np.int64] | Tensor, size: int) -> Floats:
    """Return the nats that an n-gram (Witten & Bell) loses at each of characters 2..N: float64 (N - 1,).

    Args:
        counted: ids (M,) of characters that it counts.
        held_out: ids (N,) that it is asked about, in stretches.
        size: number of different characters.
    """
    stretches = (
        np.asarray(held_out[start : start + STRETCH], np.int64) for start in range(0, len(held_out), STRETCH)
    )
    probability = np.concatenate([witten_bell(counted, stretch, size, NGRAM) for stretch in stretches])
    losses: Floats = -np.log(probability[1:])
    return losses


def baselines(ngram: Floats, size: int) -> dict[Contender, Floats]:
    """Return the losses of the n-gram and of the uniform distribution over so many characters."""
    return {
        Contender(f"{NGRAM}-gram, Witten-Bell", f"baseline_{NGRAM}gram"): ngram,
        Contender("uniform", "baseline_uniform"): np.full(len(ngram), np.log(size)),
    }


def int8_gate(metrics: Mapping[str, float]) -> Gate:
    """Return what int8 weights add to the held-out loss, and what they may add."""
    cost = metrics[f"{INT8_KEY}_loss"] - metrics["held_out_loss"]
    return Gate("held-out loss above that of fp32, nats a character", INT8_COST, cost)
