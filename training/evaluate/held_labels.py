"""Scores versions of the recipe sentiment: wrong labels and log loss over held-out texts."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.spec import Normalization
from training.data.sources import REVIEWS, Source
from training.evaluate.scorer import Choices, Floats, Loss
from training.evaluate.version import Version
from training.export.chunks import ChunkCell
from training.export.pictures import Labels
from training.recipes import sentiment


@dataclass(frozen=True, slots=True)
class HeldLabels:
    """Held-out texts with their labels."""

    texts: sentiment.Texts

    @property
    def sha256(self) -> str:
        """Return the hash of labels, texts and classes."""
        texts = self.texts
        held = json.dumps([texts.labels, texts.texts, texts.classes.tolist()])
        return hashlib.sha256(held.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{len(self.texts.texts):,} texts"


class LabelScorer:
    """Scores classifiers of texts."""

    option = "--csv"

    @property
    def shipped(self) -> Source:
        """Return the movie reviews."""
        return REVIEWS

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldLabels:
        """Return the tenth of the texts that the version's seed holds out."""
        if choices["source"] == "own":
            table = sentiment.Table(source, choices["text_column"], choices["label_column"])
            texts = sentiment.read_labelled(table)
        else:
            texts = sentiment.read_reviews()
        return HeldLabels(sentiment.split(texts, version.model.provenance.seed or 0).held_out)

    def losses(self, version: Version, part: HeldLabels, variant: spec.Variant) -> list[Loss]:
        """Return whether each label is wrong, and its log loss."""
        return _label_losses(label_probabilities(version, version.cell(variant), part.texts), part.texts)

    def evidence(self, version: Version, part: HeldLabels) -> Labels:
        """Return which labels are taken for which, and how often confidence is right."""
        return _labels(label_probabilities(version, version.cell(), part.texts), part.texts)


def label_probabilities(version: Version, cell: ChunkCell, texts: sentiment.Texts) -> Floats:
    """Return the probabilities of all classes for each text, as served: float64 (N, classes)."""
    assert version.model.classification is not None
    rules = version.model.classification.text.normalization or Normalization()
    tokenizer = Tokenizer.from_str(version.files[version.model.classification.text.file].decode())
    probabilities: Floats = (
        sentiment.served_logits(cell, sentiment.encode(tokenizer, texts.normalized(rules).texts))
        .double()
        .softmax(dim=1)
        .numpy()
    )
    return probabilities


def _label_losses(probabilities: Floats, texts: sentiment.Texts) -> list[Loss]:
    given = probabilities[np.arange(len(probabilities)), texts.classes]
    return [
        Loss("wrong labels, %", 100.0 * (probabilities.argmax(axis=1) != texts.classes), 1, ".2f"),
        Loss("log loss, nats", -np.log(np.maximum(given, np.finfo(np.float64).tiny)), 1, ".4f"),
    ]


def _labels(probabilities: Floats, texts: sentiment.Texts) -> Labels:
    given, size = probabilities.argmax(axis=1), len(texts.labels)
    confidence, is_right = probabilities.max(axis=1), given == texts.classes
    bins = np.minimum((confidence * sentiment.CALIBRATION_BINS).astype(int), sentiment.CALIBRATION_BINS - 1)
    held, bins, counts = np.unique(bins, return_inverse=True, return_counts=True)
    return Labels(
        labels=texts.labels,
        counts=np.bincount(texts.classes * size + given, minlength=size * size).reshape(size, size).tolist(),
        confidence=(np.bincount(bins, confidence, len(held)) / counts).tolist(),
        accuracy=(np.bincount(bins, is_right, len(held)) / counts).tolist(),
        texts=counts.tolist(),
        error=100 * sentiment.calibration_error(probabilities, texts.classes),
    )
