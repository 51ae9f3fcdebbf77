"""Text classification: text to tokens by the `tokenizers` library, logits to probabilities."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

# The library's own threads would compete with onnxruntime's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.engine.delivery import Intake, run
from service.engine.sequence import Goal
from service.errors import InvalidArgument
from service.spec import Classification
from service.tasks.limits import Limits, check_texts

# Above this many characters tokenizing takes milliseconds, which other calls should not wait for.
_INLINE_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True)
class Classified:
    """A text's probabilities, most probable first, and how many tokens it has."""

    ranked: list[tuple[str, float]]
    token_count: int


class ClassificationTask:
    """A model's tokenizer and labels, and its engine.

    Args:
        spec: labels, in the order of the outputs.
        tokenizer: text to ids, unknown words included.
        engine: runs it.
        limits: sizes of requests.
    """

    def __init__(self, spec: Classification, tokenizer: Tokenizer, engine: Intake, limits: Limits) -> None:
        self._labels = spec.labels
        self._tokenizer = tokenizer
        self._engine = engine
        self._limits = limits

    async def classify(self, texts: Sequence[str], deadline: float | None) -> list[Classified]:
        """Classify texts side by side.

        Raises:
            InvalidArgument: no text, too many, one without a token or too long.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_texts(texts, self._limits)
        if sum(map(len, texts)) > _INLINE_CHARACTERS:
            inputs = await asyncio.to_thread(self.encode, texts)
        else:
            inputs = self.encode(texts)
        outputs = await run(self._engine, inputs, Goal.LAST, deadline)
        return [self._classified(logits, len(tokens)) for logits, tokens in zip(outputs, inputs, strict=True)]

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of each text, int64 (T,), T >= 1.

        Raises:
            InvalidArgument: a text has no token.
        """
        inputs = [np.array(encoding.ids, np.int64) for encoding in self._tokenizer.encode_batch(list(texts))]
        for index, tokens in enumerate(inputs):
            if not len(tokens):
                raise InvalidArgument(f"texts[{index}]", "expected at least one token, found none")
        return inputs

    def _classified(self, logits: NDArray[np.float32], token_count: int) -> Classified:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = weights / weights.sum()
        order = np.argsort(-probabilities, kind="stable")
        return Classified([(self._labels[index], float(probabilities[index])) for index in order], token_count)
