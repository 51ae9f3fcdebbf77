"""The lesson hello: shapes of what goes into one cell and of what comes out. Nothing is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from training.lecture.lesson import encode, one_hot_network
from training.networks.network import Cell, RecurrentNetwork

VOCABULARY = "helo"
HIDDEN = 2
BATCH = ("hello", "eolll", "lleel")


@dataclass(frozen=True, slots=True)
class Shapes:
    """An untrained network whose state has `HIDDEN` values."""

    network: RecurrentNetwork

    def lines(self) -> Iterator[str]:
        """Return the shapes of one letter, of a word at once and letter by letter, and of three words."""
        yield f"letters {VOCABULARY}, one-hot: h = {_numbers(self._one_hot('h')[0, 0])}"
        for texts in (("h",), ("hello",), BATCH):
            hidden, state = self.run(texts)
            states = ", ".join(
                f"{name} {_shape(tensor)}"
                for name, tensor in zip(self.network.config.state_names, state, strict=True)
            )
            yield (
                f"{' '.join(texts)}: input (batch, time, letters) "
                f"{_shape(self._one_hot(*texts))} -> output (batch, time, hidden) {_shape(hidden)}"
            )
            yield f"  state after it: {states}"
        whole, _ = self.run(("hello",))
        yield "hello at once, and letter by letter with the state handed on:"
        for letter, at_once, alone in zip("hello", whole[0], self.by_letter("hello"), strict=True):
            yield f"  {letter} -> {_numbers(at_once)}   {_numbers(alone)}"

    def run(self, texts: tuple[str, ...]) -> tuple[Tensor, list[Tensor]]:
        """Return hidden states (B, T, H), and the state after the last step, of texts of one length."""
        with torch.no_grad():
            hidden, state = self.network(torch.stack([encode(text, VOCABULARY) for text in texts]))
        return hidden, state

    def by_letter(self, text: str) -> list[Tensor]:
        """Return the hidden state (H,) after each letter, each computed in a run of its own."""
        found, state = [], None
        with torch.no_grad():
            for letter in text:
                hidden, state = self.network(encode(letter, VOCABULARY)[None], state=state)
                found.append(hidden[0, 0])
        return found

    def package(self) -> None:
        """Return None, since two numbers a step stand for no letters."""

    def question(self) -> str:
        """Return why there is no command that asks it."""
        return (
            f"not exported: {HIDDEN} untrained numbers a step stand for none "
            f"of the {len(VOCABULARY)} letters, so there is nothing to ask"
        )

    def _one_hot(self, *texts: str) -> Tensor:
        vectors: Tensor = self.network.input_layer(
            torch.stack([encode(text, VOCABULARY) for text in texts])
        ).detach()
        return vectors


def teach(cell: Cell, seed: int) -> Shapes:
    """Make one layer without a head."""
    return Shapes(one_hot_network(cell, len(VOCABULARY), seed, hidden=HIDDEN).eval())


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _numbers(row: Tensor) -> str:
    return " ".join(f"{value:5.2f}" for value in row.tolist())
