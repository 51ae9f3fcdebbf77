"""The lesson dynamic: rows of different lengths in one batch.

Past a row's length the output is zero, and a row does not depend on those beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from training.export.export import Package
from training.lecture.lesson import History, decode, encode, greedy, learn, one_hot_network, text_package
from training.networks.network import Cell, RecurrentNetwork

WORDS = ("hello", "cat", "bird")
END = "\n"
VOCABULARY = "".join(dict.fromkeys("".join(WORDS))) + END
EPOCHS = 150
RATE = 0.05


@dataclass(frozen=True, slots=True)
class Padded:
    """Three words, learnt by heart in one batch.

    Attributes:
        network: trained.
        history: a row a word.
        outputs: float32 (3, 5, letters), of the batch.
        alone: float32 (length, letters) each, of every word in a batch of its own.
        seed: of the run.
    """

    network: RecurrentNetwork
    history: History
    outputs: Tensor
    alone: list[Tensor]
    seed: int

    @property
    def largest_difference(self) -> float:
        """Return the largest difference between a word beside others and the same word alone."""
        return max(
            float((row[: len(one)] - one).abs().max())
            for row, one in zip(self.outputs, self.alone, strict=True)
        )

    @property
    def is_learned(self) -> bool:
        """Return whether each word's first letter brings the rest of it, and its end."""
        return all(self.after(word[0], len(word)) == word[1:] + END for word in WORDS)

    def after(self, prompt: str, count: int) -> str:
        """Return what the network says after a prompt, feeding back the likeliest letter."""
        return decode(greedy(self.network, encode(prompt, VOCABULARY), count), VOCABULARY)

    def lines(self) -> Iterator[str]:
        """Return every output as a number, and the end of each word."""
        yield (
            f"words {', '.join(WORDS)}: lengths {list(map(len, WORDS))}, "
            f"output (batch, time, letters) {tuple(self.outputs.shape)}"
        )
        yield f"output at each step, a column a letter of {VOCABULARY!r}:"
        for word, row in zip(WORDS, self.outputs, strict=True):
            for letter, values in zip(word.ljust(len(row), "-"), row.tolist(), strict=True):
                yield f"  {word:<5}  {letter}  {' '.join(f'{value:5.2f}' for value in values)}"
        yield f"{WORDS[1]} alone:"
        for letter, values in zip(WORDS[1], self.alone[1].tolist(), strict=True):
            yield f"  {WORDS[1]:<5}  {letter}  {' '.join(f'{value:5.2f}' for value in values)}"
        yield f"largest difference of a word alone: {self.largest_difference:.0e}"
        yield (
            f"loss {self.history.losses[0]:.3f} before training, "
            f"{self.history.losses[-1]:.3f} after {EPOCHS} epochs"
        )
        yield "alone, after the first letter: " + ", ".join(
            f"{word[0]} -> {self.after(word[0], len(word))!r}" for word in WORDS
        )

    def package(self) -> Package:
        """Return the package of a text generator that knows the words."""
        return text_package(
            "dynamic",
            self.network,
            VOCABULARY,
            " ".join(WORDS),
            [word + END for word in WORDS],
            self.history.losses[-1],
            self.seed,
        )

    def question(self) -> str:
        """Return a command that asks for a word; the end of the word stops it."""
        return f"seqserve generate --model dynamic --temperature 0 --stop '\\n' {WORDS[0][0]}"


def teach(cell: Cell, seed: int) -> Padded:
    """Train one layer that is as wide as the vocabulary, without a head."""
    network = one_hot_network(cell, len(VOCABULARY), seed)
    rows = [encode(word, VOCABULARY) for word in WORDS]
    lengths = torch.tensor(list(map(len, WORDS)))
    batch = pad_sequence(rows, batch_first=True)
    targets = pad_sequence([encode(word[1:] + END, VOCABULARY) for word in WORDS], batch_first=True)
    history = learn(network, batch, targets, EPOCHS, RATE, lengths)
    with torch.no_grad():
        outputs = network.outputs_of(network(batch, lengths)[0])
        alone = [network.outputs_of(network(row[None])[0])[0] for row in rows]
    return Padded(network, history, outputs, alone, seed)
