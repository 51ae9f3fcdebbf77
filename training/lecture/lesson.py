"""Shared parts of the lessons: letters, the training loop of a small batch, a package for the service."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from service.contract.spec import Characters, Generation
from training.export.card import CardFacts
from training.export.export import Package, provenance
from training.loop.fit import build_network
from training.networks.network import Cell, NetworkConfig, RecurrentNetwork

CLIP = 1.0


class Taught(Protocol):
    """Protocol of what a lesson returns."""

    def lines(self) -> Iterator[str]:
        """Return what the lesson shows, line by line."""
        ...

    def package(self) -> Package | None:
        """Return the package for the service; None: nothing can be served."""
        ...

    def question(self) -> str:
        """Return a command that asks the served model, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """Progress of a training, with an entry for each epoch and one for before the first step.

    Attributes:
        losses: mean over the valid steps.
        predictions: int64 (B, T) each: the likeliest token at every step.
    """

    losses: list[float]
    predictions: list[Tensor]


def encode(text: str, vocabulary: str) -> Tensor:
    """Convert letters to token ids, int64 (T,)."""
    return torch.tensor([vocabulary.index(letter) for letter in text])


def decode(tokens: Tensor, vocabulary: str) -> str:
    """Convert token ids (T,) to letters."""
    return "".join(vocabulary[token] for token in tokens.tolist())


def one_hot_network(
    cell: Cell, size: int, seed: int, *, layers: int = 1, hidden: int = 0, outputs: int = 0
) -> RecurrentNetwork:
    """Make a network that reads letters as one-hot vectors: its embedding is a unit matrix that stays so.

    Args:
        cell: which recurrence.
        size: of the vocabulary.
        seed: of the weights.
        layers: recurrent layers.
        hidden: width of the state; 0: one value a letter, so that without a head the hidden state itself can
            be the logits.
        outputs: width of the dense head; 0: none.
    """
    network = build_network(
        NetworkConfig(cell, layers, hidden or size, outputs, vocabulary=size, embedding=size), seed, "cpu"
    )
    assert isinstance(network.input_layer, nn.Embedding)
    network.input_layer.weight = nn.Parameter(torch.eye(size), requires_grad=False)
    return network


def learn(
    network: RecurrentNetwork,
    inputs: Tensor,
    targets: Tensor,
    epochs: int,
    rate: float,
    lengths: Tensor | None = None,
) -> History:
    """Minimize the cross-entropy of the next letter over the whole batch at once.

    Each epoch is one optimiser step; its rate falls to zero along a cosine.

    Args:
        network: is trained.
        inputs, targets: int64 (B, T) token ids.
        epochs: optimiser steps.
        rate: Adam's learning rate at the start.
        lengths: int64 (B,), valid steps of each row; None: all are T. What lies past them counts for nothing.
    """
    optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    valid = (
        torch.ones_like(inputs, dtype=torch.bool)
        if lengths is None
        else torch.arange(inputs.shape[1]) < lengths[:, None]
    )
    history = History([], [])
    for _ in range(epochs):
        hidden, _ = network(inputs, lengths)
        outputs = network.outputs_of(hidden)
        loss = cross_entropy(outputs[valid], targets[valid])
        history.losses.append(float(loss.detach()))
        history.predictions.append(outputs.detach().argmax(dim=-1))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    network.eval()
    return history


def greedy(network: RecurrentNetwork, prompt: Tensor, count: int) -> Tensor:
    """Return what the network says after a prompt, feeding back the likeliest token: int64 (T,) -> (count,).

    The service does so at temperature 0.
    """
    said: list[Tensor] = []
    with torch.no_grad():
        hidden, state = network(prompt[None])
        for _ in range(count):
            said.append(network.outputs_of(hidden[:, -1]).argmax(dim=-1))
            hidden, state = network(said[-1][None], state=state)
    return torch.cat(said)


def text_package(
    name: str,
    network: RecurrentNetwork,
    vocabulary: str,
    text: str,
    pieces: Sequence[str],
    loss: float,
    seed: int,
) -> Package:
    """Return the package of a text model for the service.

    Args:
        name: of the model.
        network: trained.
        vocabulary: a letter's index is its token id.
        text: what it was trained on.
        pieces: of it, of several lengths, none longer than what was trained on at once: the golden examples.
        loss: nats a letter, over all steps trained on.
        seed: of the run.
    """
    head = (
        "a dense head"
        if network.config.outputs
        else "no head: the hidden state itself is the logits, one value a letter"
    )
    return Package(
        name=name,
        network=network,
        section=Generation(
            text=Characters(kind="characters", vocabulary=vocabulary),
            start_token=0,
            max_tokens=max(map(len, pieces)),
        ),
        examples=[encode(piece, vocabulary) for piece in pieces],
        metrics={"training_loss": loss},
        provenance=provenance(
            f"the text of a lesson: {text}", "none needed", hashlib.sha256(text.encode()).hexdigest(), seed
        ),
        card=CardFacts(
            summary=f"Says by heart what it was trained on, with {head}: a lesson of docs/lecture.md.",
            split="Everything is trained on.",
            results=f"Nothing is held out. Loss on what was trained on: {loss:.4f} nats a letter.",
            limits="For looking at; it knows nothing but its text.",
        ),
    )
