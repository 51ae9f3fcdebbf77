"""Text classification: text to tokens, logits to probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract.spec import Classification
from service.engine.request import Caller, Goal, Request
from service.engine.streaming import Submitter, run_all
from service.errors import InvalidArgument
from service.tasks.limits import Limits, check_count, check_texts
from service.tasks.sequence_outputs import check_probabilities
from service.tasks.text_reader import TextReader
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit


@dataclass(frozen=True, slots=True)
class Classified:
    """A text's labels with their probabilities, most probable first, and how many tokens it has."""

    ranked: list[tuple[str, float]]
    token_count: int


class ClassificationTask:
    """Classifies texts with one model.

    Args:
        spec: labels, in the order of the outputs, and the normalization of texts.
        tokenizer: turns text into ids, unknown words included.
        engine: runs the model.
        limits: sizes of requests.
        text_work: decides where texts are tokenized.
        window: brings texts to the network's fixed length, if it has one.
        name: name of the model, for error texts.

    Attributes:
        limits: sizes of requests.
        num_labels: number of labels.
        label_bytes: bytes of all labels in UTF-8.
        max_label_bytes: bytes of the longest one.
    """

    def __init__(
        self,
        spec: Classification,
        tokenizer: Tokenizer,
        engine: Submitter,
        limits: Limits,
        text_work: TextWork,
        window: WindowFit = WindowFit(None),
        name: str = "",
    ) -> None:
        self._labels = spec.labels
        self._tokenizer = tokenizer
        self._reader = TextReader(name, spec.text, tokenizer)
        self._engine = engine
        self.limits = limits
        self._text_work = text_work
        self._window = window
        sizes = [len(label.encode(errors="surrogatepass")) for label in spec.labels]
        self.num_labels, self.label_bytes, self.max_label_bytes = len(sizes), sum(sizes), max(sizes)

    async def classify(self, texts: Sequence[str], caller: Caller) -> list[Classified]:
        """Classify texts side by side.

        Raises:
            InvalidArgument: no text, too many, one without a token or too long, or one for which the
                network gives no probabilities.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        lengths = check_texts(texts, self.limits)

        def tokens_of(part: slice) -> list[NDArray[np.signedinteger]]:
            fields = [f"texts[{index}]" for index in range(part.start, part.stop)]
            return [tokens.ids for tokens in self._reader.read(texts[part], fields, with_spans=False)]

        inputs = await self._text_work.run(tokens_of, lengths, caller)
        return await self._run(inputs, "texts", caller)

    async def classify_tokens(self, inputs: Sequence[NDArray[Any]], caller: Caller) -> list[Classified]:
        """Classify texts given as token ids, integers (T,), side by side.

        Raises:
            InvalidArgument: no text, too many, one without a token or with too many, or an unknown id, or
                one for which the network gives no probabilities.
            Overloaded, DeadlineExceeded, ModelFailure: from the engine.
        """
        check_count("input", "texts", len(inputs), self.limits.items)
        size = self._tokenizer.get_vocab_size()
        for index, tokens in enumerate(inputs):
            check_count(f"input[{index}]", "tokens", len(tokens), self.limits.text_length)
            if wrong := np.flatnonzero((tokens < 0) | (tokens >= size)).tolist():
                raise InvalidArgument(
                    f"input[{index}, {wrong[0]}]",
                    f"expected a token id of 0..{size - 1}, found {tokens[wrong[0]]}",
                )
        return await self._run(inputs, "input", caller)

    async def _run(
        self, inputs: Sequence[NDArray[np.signedinteger]], field: str, caller: Caller
    ) -> list[Classified]:
        fitted = (self._window.fit(one, f"{field}[{index}]").inputs for index, one in enumerate(inputs))
        outputs = await run_all(self._engine, [Request(one, Goal.LAST) for one in fitted], caller)
        return [
            Classified(self._ranked(logits.tolist(), f"{field}[{index}]"), len(tokens))
            for index, (logits, tokens) in enumerate(zip(outputs, inputs, strict=True))
        ]

    def _ranked(self, logits: list[float], field: str) -> list[tuple[str, float]]:
        """Return labels with probabilities, most probable first; equal ones keep the order of the labels."""
        highest = max(logits)
        weights = [math.exp(one - highest) for one in logits]
        total = sum(weights)
        check_probabilities(total, field)
        order = sorted(range(len(weights)), key=weights.__getitem__, reverse=True)
        return [(self._labels[index], weights[index] / total) for index in order]
