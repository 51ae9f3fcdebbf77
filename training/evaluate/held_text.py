"""Scores language models over characters or other tokens: nats a character over the last tenth of a text.

A model over tokens and one over characters have losses of the same characters, so that they can be compared.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from training.data.characters import characters_of
from training.data.normalization import COMPOSED
from training.data.sources import PLAYS, Source
from training.errors import TrainingError
from training.evaluate.scorer import Choices, Loss
from training.evaluate.version import Version
from training.recipes.chance import Floats
from training.recipes.text_corpus import cut_of, read_text
from training.recipes.text_losses import CHARACTERS_A_BLOCK, served_losses
from training.recipes.token_corpus import encode_lines
from training.recipes.token_losses import by_character, with_start

TITLE = "loss, nats a character"


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
        return _held_out(source, rules)

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
        losses = served_losses(version.cell(variant), ids, len(index))
        return [Loss(TITLE, losses, CHARACTERS_A_BLOCK, ".4f")]

    def evidence(self, version: Version, part: HeldText) -> None:
        """Show nothing: the card of a text generator has samples instead."""


class TokenScorer:
    """Scores language models over bytes, sub-words or words."""

    option = "--text"
    # All of them are trained on a text of the user's.
    shipped: Source | None = None

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldText:  # noqa: ARG002
        """Return the last tenth of the text, composed as it was read in training."""
        return _held_out(source, COMPOSED)

    def losses(self, version: Version, part: HeldText, variant: spec.Variant) -> list[Loss]:
        """Return nats of each character but the first, given those before.

        The text is read as it is when served: a character that normalization replaces costs what its
        replacement costs, and one that it drops costs nothing.
        """
        section = version.model.generation
        assert section is not None, "a tokenlm generates"
        assert isinstance(section.text, spec.TokenizerFile), "a tokenlm has a tokenizer"
        tokenizer = Tokenizer.from_str(version.files[section.text.file].decode())
        normalizer = Normalizer(section.text.normalization)
        text = normalizer.normalized(part.text)
        ids = encode_lines(tokenizer, text)
        losses = served_losses(
            version.cell(variant), with_start(ids, section.start_token), tokenizer.get_vocab_size()
        )
        found: Floats = np.zeros(len(part.text))
        np.add.at(found, normalizer.places(part.text)[:-1], by_character(losses, ids, tokenizer, text))
        return [Loss(TITLE, found[1:], CHARACTERS_A_BLOCK, ".4f")]

    def evidence(self, version: Version, part: HeldText) -> None:
        """Show nothing: the card of a text generator has samples instead."""


def _held_out(source: Source, rules: spec.Normalization | None) -> HeldText:
    """Return the last tenth of a text, normalized."""
    text = Normalizer(rules).normalized(read_text(source.path, source.encoding))
    return HeldText(text[cut_of(len(text)).held_out :])
