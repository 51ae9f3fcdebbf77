"""Text classification: text to tokens, logits to probabilities."""

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

# The library's own threads would compete with onnxruntime's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.spec import Classification
from service.engine.delivery import Intake
from service.engine.gather import collect
from service.engine.sequence import Caller, Goal
from service.errors import InvalidArgument
from service.tasks.limits import Limits, check_count, check_texts

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
        self.engine = engine
        self._limits = limits

    async def classify(self, texts: Sequence[str], caller: Caller) -> list[Classified]:
        """Classify texts side by side.

        Raises:
            InvalidArgument: no text, too many, one without a token or too long.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        inputs = await asyncio.to_thread(self.encode, texts) if self.is_long(texts) else self.encode(texts)
        return self.classified(await collect(self.engine, inputs, Goal.LAST, caller), inputs)

    async def classify_tokens(self, inputs: Sequence[NDArray[np.int64]], caller: Caller) -> list[Classified]:
        """Classify texts given as token ids, int64 (T,), side by side.

        Raises:
            InvalidArgument: no text, too many, one without a token or with too many, or an id that the
                tokenizer lacks.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_count("input", "texts", len(inputs), self._limits.items)
        size = self._tokenizer.get_vocab_size()
        for index, tokens in enumerate(inputs):
            check_count(f"input[{index}]", "tokens", len(tokens), self._limits.text_length)
            if wrong := np.flatnonzero((tokens < 0) | (tokens >= size)).tolist():
                raise InvalidArgument(
                    f"input[{index}, {wrong[0]}]",
                    f"expected a token id of 0..{size - 1}, found {tokens[wrong[0]]}",
                )
        return self.classified(await collect(self.engine, inputs, Goal.LAST, caller), inputs)

    def is_long(self, texts: Sequence[str]) -> bool:
        """Whether `encode` takes so long that it should run in another thread."""
        return sum(map(len, texts)) > _INLINE_CHARACTERS

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Token ids of each text, int64 (T,), T >= 1.

        Raises:
            InvalidArgument: no text, too many, one too long or without a token.
        """
        check_texts(texts, self._limits)
        # Fast: without offsets, which nobody asks for.
        inputs = [
            np.array(encoding.ids, np.int64) for encoding in self._tokenizer.encode_batch_fast(list(texts))
        ]
        for index, tokens in enumerate(inputs):
            if not len(tokens):
                raise InvalidArgument(f"texts[{index}]", "expected at least one token, found none")
        return inputs

    def classified(
        self, outputs: Sequence[NDArray[np.float32]], inputs: Sequence[NDArray[np.int64]]
    ) -> list[Classified]:
        """Logits, float32 (labels,) a text, to probabilities."""
        return [
            Classified(self._ranked(logits.tolist()), len(tokens))
            for logits, tokens in zip(outputs, inputs, strict=True)
        ]

    def _ranked(self, logits: list[float]) -> list[tuple[str, float]]:
        most = max(logits)
        weights = [math.exp(one - most) for one in logits]
        total = sum(weights)
        order = sorted(
            range(len(weights)), key=weights.__getitem__, reverse=True
        )  # equal ones stay in the order of the labels
        return [(self._labels[index], weights[index] / total) for index in order]
