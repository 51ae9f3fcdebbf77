"""The lesson longseq: a sentence in windows of ten letters, which one layer without a head does not learn.

Four nets are trained, so that it shows which of the two it takes: the head. A hidden state lies between -1
and 1, so with it as logits the likeliest of 25 letters gets less than a quarter of the probability, and one
row of numbers has to be memory and answer at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.export.export import Package
from training.lecture.lesson import History, decode, encode, greedy, learn, one_hot_network, text_package
from training.networks.network import Cell, RecurrentNetwork

SENTENCE = (
    "if you want to build a ship, don't drum up people together to collect wood "
    "and don't assign them tasks and work, "
    "but rather teach them to long for the endless immensity of the sea."
)
VOCABULARY = "".join(sorted(set(SENTENCE)))
WINDOW = 10
EPOCHS = 120
RATE = 0.05


@dataclass(frozen=True, slots=True)
class Net:
    """One of the nets that are compared.

    Attributes:
        layers: recurrent layers.
        has_head: whether a dense head follows.
        network: trained.
        history: a row a window.
    """

    layers: int
    has_head: bool
    network: RecurrentNetwork
    history: History

    @property
    def title(self) -> str:
        """Return its name for tables and pictures."""
        return (
            f"{self.layers} layer{'s' if self.layers > 1 else ''}, "
            f"{'dense head' if self.has_head else 'no head'}"
        )

    def right(self, epoch: int = -1) -> int:
        """Count the windows whose next letter is predicted at their last step."""
        return int((self.history.predictions[epoch][:, -1] == targets()[:, -1]).sum())

    @property
    def is_learned(self) -> bool:
        """Return whether the next letter of every window is predicted."""
        return self.right() == len(targets())

    def sentence(self) -> str:
        """Return the sentence as the windows predict it: all steps of the first, the last of the others."""
        predicted = self.history.predictions[-1]
        return decode(torch.cat([predicted[0], predicted[1:, -1]]), VOCABULARY)

    def read_on(self) -> str:
        """Return what the net says after the first window, its state carried on.

        That is longer than any window that it was trained on.
        """
        return decode(
            greedy(self.network, encode(SENTENCE[:WINDOW], VOCABULARY), len(SENTENCE) - WINDOW), VOCABULARY
        )


@dataclass(frozen=True, slots=True)
class Contest:
    """The nets side by side; the last one is exported."""

    nets: list[Net]
    seed: int

    def lines(self) -> Iterator[str]:
        """Return the windows, the nets, and what the first and the last net make of the sentence."""
        size = len(VOCABULARY)
        yield (
            f"{len(SENTENCE)} letters, {size} different ones, "
            f"hidden {size}: {len(inputs())} windows of {WINDOW}"
        )
        for index in (0, 1, len(inputs()) - 1):
            yield (
                f"  window {index:>3}: {decode(inputs()[index], VOCABULARY)!r} "
                f"-> {decode(targets()[index], VOCABULARY)!r}"
            )
        yield f"{'':24}loss by epoch{'':22}windows right"
        for net in self.nets:
            losses = " ".join(
                f"{net.history.losses[epoch]:6.3f}"
                for epoch in (0, EPOCHS // 8, EPOCHS // 4, EPOCHS // 2, EPOCHS - 1)
            )
            yield (
                f"  {net.title:<22}{losses} {net.right():>4} of {len(targets())} "
                f"{'learned' if net.is_learned else 'not learned'}"
            )
        for net in (self.nets[0], self.nets[-1]):
            yield f"{net.title}, read off the windows: {net.sentence()}"
        text = SENTENCE[WINDOW:]
        said = self.nets[-1].read_on()
        same = next(
            (index for index, (one, other) in enumerate(zip(text, said, strict=True)) if one != other),
            len(text),
        )
        yield (
            f"{self.nets[-1].title}, by itself after {SENTENCE[:WINDOW]!r}: "
            f"the first {same} of {len(text)} letters right"
        )

    def package(self) -> Package:
        """Return the package of the last net as a text generator."""
        net = self.nets[-1]
        pieces = [SENTENCE[:1], SENTENCE[3:7], SENTENCE[:WINDOW], SENTENCE[80 : 80 + WINDOW]]
        return text_package(
            "longseq", net.network, VOCABULARY, SENTENCE, pieces, net.history.losses[-1], self.seed
        )

    def question(self) -> str:
        """Return a command whose prompt is the first window."""
        return (
            "seqserve generate --model longseq --temperature 0 "
            f"--max-tokens {len(SENTENCE) - WINDOW} '{SENTENCE[:WINDOW]}'"
        )


def inputs() -> Tensor:
    """Return every window but the last letter's: int64 (170, 10)."""
    return encode(SENTENCE, VOCABULARY)[:-1].unfold(0, WINDOW, 1)


def targets() -> Tensor:
    """Return the same windows a letter later: int64 (170, 10)."""
    return encode(SENTENCE, VOCABULARY)[1:].unfold(0, WINDOW, 1)


def train(cell: Cell, seed: int, layers: int, *, has_head: bool) -> Net:
    """Train one of the nets."""
    size = len(VOCABULARY)
    network = one_hot_network(cell, size, seed, layers=layers, outputs=size if has_head else 0)
    return Net(layers, has_head, network, learn(network, inputs(), targets(), EPOCHS, RATE))


def teach(cell: Cell, seed: int) -> Contest:
    """Train four nets, the plainest first."""
    return Contest(
        [train(cell, seed, layers, has_head=has_head) for has_head in (False, True) for layers in (1, 2)],
        seed,
    )
