"""Text classification as models of Triton's Python backend: the usual one pads what Triton has batched, the
best one sorts it by length first and runs it in small batches.

Runs in Triton's stub. Inputs and outputs are those of docs/open-inference.md, of one text each: `text` BYTES
[1, 1]; `label` BYTES [1, 1] and `probabilities` FP32 [1, labels].
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from benchmarks.baselines.padded import PaddedBatches
from benchmarks.models import read_model
from benchmarks.peers.batches import by_length

Tokens = NDArray[np.int64]


class Classifier:
    """Tokenizes texts, runs batches of them and makes responses.

    Args:
        config: Triton's configuration of the model, with the parameters `folder` and `rows`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        parameters = config["parameters"]
        model = read_model(Path(parameters["folder"]["string_value"]))
        self.rows = int(parameters["rows"]["string_value"])
        self._tokenizer = model.tokenizer()
        self._batches = PaddedBatches(model, self.rows)
        section = model.spec.classification
        assert section is not None, "expected a classifier"
        self._labels = [np.array([[label.encode()]], np.object_) for label in section.labels]
        self._batches.run([np.zeros(1, np.int64)] * self.rows)  # the first run allocates

    def tokens_of(self, requests: Sequence[Any]) -> list[Tokens]:
        """Return the token ids of each request's text."""
        given = [pb_utils.get_input_tensor_by_name(request, "text").as_numpy()[0, 0] for request in requests]
        encodings = self._tokenizer.encode_batch_fast([text.decode() for text in given])
        return [np.array(encoding.ids, np.int64) for encoding in encodings]

    def answer(self, batch: Sequence[Tokens]) -> list[Any]:
        """Run a batch and return a response for each of its rows."""
        logits = self._batches.run(batch)  # (B, labels)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        best = logits.argmax(axis=1).tolist()
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("label", self._labels[label]),
                    pb_utils.Tensor("probabilities", weights[row : row + 1]),
                ]
            )
            for row, label in enumerate(best)
        ]


class UsualTexts:
    """Pads all requests that Triton has batched to the longest of them, and runs them at once."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        self._classifier = Classifier(json.loads(args["model_config"]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests together."""
        return self._classifier.answer(self._classifier.tokens_of(requests))


class SortedTexts:
    """Takes many requests at a time, and runs them in small batches of nearly the same length.

    All are answered together. A response sender for each request, which Triton offers as well, would answer
    the short texts first, but took a fifth to a third of the throughput, and no text was answered sooner.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model."""
        self._classifier = Classifier(json.loads(args["model_config"]))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return the answers in the order of the requests."""
        tokens = self._classifier.tokens_of(requests)
        responses: list[Any] = [None] * len(requests)
        for batch in by_length([len(one) for one in tokens], self._classifier.rows):
            made = self._classifier.answer([tokens[index] for index in batch])
            for index, response in zip(batch, made, strict=True):
                responses[index] = response
        return responses
