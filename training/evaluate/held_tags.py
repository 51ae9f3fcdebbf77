"""Scores versions of the recipe label: wrong tags and log loss over the words of held-out sentences."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.sections import TokenizerFile
from training.data.sources import Source
from training.data.tagged import Sentence, TaggedChoice
from training.errors import TrainingError
from training.evaluate.scorer import Choices, Floats, Loss
from training.evaluate.version import Version
from training.export.pictures import LabelledParts
from training.recipes import label
from training.recipes.class_measures import log_losses
from training.recipes.sequence_delivery import labelled
from training.recipes.series_results import softmax


@dataclass(frozen=True, slots=True)
class HeldTags:
    """Held-out sentences with their tags."""

    sentences: list[Sentence]

    @property
    def sha256(self) -> str:
        """Return the hash of tokens and tags."""
        return hashlib.sha256(json.dumps(self.sentences).encode()).hexdigest()

    def __str__(self) -> str:
        words = sum(len(one.tokens) for one in self.sentences)
        return f"{len(self.sentences):,} sentences, {words:,} words"


class TagScorer:
    """Scores networks that give each word a tag."""

    option = "--text"
    shipped = None

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldTags:
        """Return the tenth of the sentences that the version's seed holds out."""
        columns = int(choices["token_column"]), int(choices["tag_column"])
        choice = label.LabelChoice(TaggedChoice(source, *columns))
        return HeldTags(label.held_out(choice, version.model.provenance.seed or 0))

    def losses(self, version: Version, part: HeldTags, variant: spec.Variant) -> list[Loss]:
        """Return whether the tag of each word is wrong, and its log loss."""
        given, known = _answers(version, part, variant)
        block = max(1, round(len(known) / len(part.sentences)))
        return [
            Loss("wrong tags, %", 100.0 * (given.argmax(1) != known), block, ".2f"),
            Loss("log loss, nats", log_losses(given, known), block, ".4f"),
        ]

    def evidence(self, version: Version, part: HeldTags) -> LabelledParts:
        """Return which tags are taken for which, and how often confidence is right."""
        return labelled(_labels(version), *_answers(version, part, "fp32"), "words")


def _labels(version: Version) -> list[str]:
    section = version.model.sequences
    assert section is not None
    return section.output.labels or []


def _answers(version: Version, part: HeldTags, variant: spec.Variant) -> tuple[Floats, NDArray[np.int64]]:
    """Return probabilities, float64 (words, tags), and the true tags, int64 (words,), of all words.

    Raises:
        TrainingError: the version has not all tags of the part, or another kind of tokenizer.
    """
    section, labels = version.model.sequences, _labels(version)
    if missing := sorted({tag for one in part.sentences for tag in one.tags} - set(labels)):
        raise TrainingError(f"{version.title}: expected the tags of the data, found no {', '.join(missing)}")
    if section is None or not isinstance(section.text, TokenizerFile):
        raise TrainingError(f"{version.title}: expected a tokenizer of words, found none")
    tokenizer = Tokenizer.from_str(version.files[section.text.file].decode())
    encoded = [label.encode(tokenizer, one, labels) for one in part.sentences]
    outputs = version.served([one.tokens.numpy() for one in encoded], variant)
    logits = [rows[one.last].astype(np.float64) for rows, one in zip(outputs, encoded, strict=True)]
    known = [labels.index(tag) for one in part.sentences for tag in one.tags]
    return softmax(np.concatenate(logits)), np.array(known, np.int64)
