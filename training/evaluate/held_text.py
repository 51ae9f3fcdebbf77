"""Scores versions of the recipe charlm: nats a character over the last tenth of a text."""

import hashlib
from dataclasses import dataclass

import torch

from service.contract import spec
from service.contract.normalizing import Normalizer
from training.data.characters import characters_of
from training.data.sources import PLAYS, Source
from training.errors import TrainingError
from training.evaluate.scorer import Choices, Loss
from training.evaluate.version import Version
from training.recipes import charlm

# Losses of the characters of one speech are alike; blocks of so many are drawn together.
CHARACTERS_A_BLOCK = 1000


@dataclass(frozen=True, slots=True)
class HeldText:
    """The held-out part of a text."""

    text: str

    @property
    def sha256(self) -> str:
        """Return the hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{len(self.text):,} characters"


class CharacterScorer:
    """Scores language models over characters."""

    option = "--text"

    @property
    def shipped(self) -> Source:
        """Return the plays."""
        return PLAYS

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldText:  # noqa: ARG002
        """Return the last tenth of the text, normalized as the version normalizes."""
        assert version.model.generation is not None, "a charlm generates"
        rules = version.model.generation.text.normalization
        text = Normalizer(rules).normalized(charlm.read_text(source.path, source.encoding))
        corpus = charlm.split(text)
        return HeldText("".join(corpus.vocabulary[token] for token in corpus.held_out.tolist()))

    def losses(self, version: Version, part: HeldText, variant: spec.Variant) -> list[Loss]:
        """Return nats of each character given those before.

        Raises:
            TrainingError: the version's vocabulary does not hold the text.
        """
        assert version.model.generation is not None, "a charlm generates"
        index = {character: token for token, character in enumerate(characters_of(version.model.generation))}
        if unknown := sorted(set(part.text) - set(index)):
            raise TrainingError(
                f"{version.title}: expected a vocabulary that holds the held-out text, "
                f"found none of {unknown[:5]}"
            )
        ids = torch.tensor([index[character] for character in part.text])
        losses = charlm.served_losses(version.cell(variant), ids)
        return [Loss("loss, nats a character", losses.numpy(), CHARACTERS_A_BLOCK, ".4f")]

    def evidence(self, version: Version, part: HeldText) -> None:
        """Show nothing: the card of a text generator has samples instead."""
