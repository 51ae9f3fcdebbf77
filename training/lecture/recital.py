"""The lessons hihello and charseq: one row, and the next letter at every step.

One layer is as wide as the vocabulary, and there is no head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from training.export.export import Package
from training.lecture.lesson import History, decode, encode, greedy, learn, one_hot_network, text_package
from training.networks.network import Cell, RecurrentNetwork

EPOCHS = 150
RATE = 0.03
SHOWN = (0, 5, 10, 15, 20, 25, 30, 40, 50, 60, 100)


@dataclass(frozen=True, slots=True)
class Recital:
    """A text that was learnt by heart.

    Attributes:
        name: of the lesson and the model.
        text: the letters, each but the last an input, each but the first a target.
        vocabulary: a letter's index is its token id.
        network: trained.
        history: of its only row.
        seed: of the run.
    """

    name: str
    text: str
    vocabulary: str
    network: RecurrentNetwork
    history: History
    seed: int

    @property
    def is_learned(self) -> bool:
        """Return whether every letter is predicted."""
        return self.predicted(EPOCHS - 1) == self.text[1:]

    @property
    def learned_at(self) -> int:
        """Return the epoch from which on every letter is predicted; the number of epochs if there is none."""
        wrong = [epoch for epoch in range(EPOCHS) if self.predicted(epoch) != self.text[1:]]
        return wrong[-1] + 1 if wrong else 0

    def predicted(self, epoch: int) -> str:
        """Return the likeliest letter at every step."""
        return decode(self.history.predictions[epoch][0], self.vocabulary)

    def alone(self) -> str:
        """Return what the network says after the first letter."""
        return decode(
            greedy(self.network, encode(self.text[0], self.vocabulary), len(self.text) - 1), self.vocabulary
        )

    def lines(self) -> Iterator[str]:
        """Return the prediction at every step, and the loss, over the epochs."""
        size = len(self.vocabulary)
        yield (
            f"{len(self.text) - 1} steps of {size} letters {self.vocabulary!r}, {size} hidden values, no head"
        )
        yield f"input       {self.text[:-1]}"
        yield f"target      {self.text[1:]}"
        for epoch in (*SHOWN, EPOCHS - 1):
            yield f"epoch {epoch:>3}   {self.predicted(epoch)}   loss {self.history.losses[epoch]:.3f}"
        yield f"learned from epoch {self.learned_at} on" if self.is_learned else "not learned"
        yield f"alone, after {self.text[0]!r}: {self.alone()}"

    def package(self) -> Package:
        """Return the package of a text generator."""
        return text_package(
            self.name,
            self.network,
            self.vocabulary,
            self.text,
            [self.text[:1], self.text[:3], self.text],
            self.history.losses[-1],
            self.seed,
        )

    def question(self) -> str:
        """Return a command whose prompt is the first letter."""
        return (
            f"seqserve generate --model {self.name} --temperature 0 "
            f"--max-tokens {len(self.text) - 1} {self.text[0]}"
        )


def teach_hihello(cell: Cell, seed: int) -> Recital:
    """Train on a text in which the state alone tells what follows: after h come i and e."""
    return _recite("hihello", "hihello", "hielo", cell, seed)


def teach_charseq(cell: Cell, seed: int) -> Recital:
    """Train on a text, with the vocabulary taken from it."""
    text = "if you want you"
    return _recite("charseq", text, "".join(sorted(set(text))), cell, seed)


def _recite(name: str, text: str, vocabulary: str, cell: Cell, seed: int) -> Recital:
    network = one_hot_network(cell, len(vocabulary), seed)
    tokens = encode(text, vocabulary)[None]
    history = learn(network, tokens[:, :-1], tokens[:, 1:], EPOCHS, RATE)
    return Recital(name, text, vocabulary, network, history, seed)
