"""Reads the sequences of requests: text, token ids or values become what the network gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Caller
from service.errors import InvalidArgument
from service.tasks.feature_columns import FeatureColumns
from service.tasks.limits import Limits, check_count
from service.tasks.pacing import Pace
from service.tasks.text_reader import Span, TextReader, Tokens
from service.tasks.text_work import TextWork
from service.tasks.windows import WindowFit

InputKind = Literal["text", "tokens", "steps"]


@dataclass(frozen=True, slots=True)
class SequenceInput:
    """One sequence as a caller sends it: text, token ids or values, and what the init graph takes.

    None of the three is given in a message of a stream that brings no time steps.

    Attributes:
        text: a text.
        tokens: token ids, int64 (T,).
        steps: values, float32 (T, F), before any scaling.
        initial: inputs of the init graph, float32 (size,) by name.
    """

    text: str | None
    tokens: NDArray[np.int64] | None
    steps: NDArray[np.float32] | None
    initial: Mapping[str, NDArray[np.float32]]

    @property
    def kinds(self) -> list[InputKind]:
        """Which of the three are given."""
        given: dict[InputKind, object] = {"text": self.text, "tokens": self.tokens, "steps": self.steps}
        return [kind for kind, value in given.items() if value is not None]


class NetworkInput(NamedTuple):
    """One sequence as the network gets it.

    Attributes:
        inputs: (T,) token ids, or float32 (T, F).
        rows: time steps that are the caller's, and not padding.
        spans: of a text, the characters of each of these, or of all where one row is wanted.
        length: time steps of the sequence before it was fitted into a window.
    """

    inputs: NDArray[Any]
    rows: slice
    spans: list[Span]
    length: int


class InputReader:
    """Reads sequences for one model.

    Args:
        columns: turn values into features; None: the network takes token ids.
        num_tokens: number of token ids; 0: the network takes features.
        text: reads texts; None: the model takes none.
        window: fits sequences into the network's fixed length.
        limits: sizes of requests.
        text_work: decides where texts are read.

    Attributes:
        kind: what the model takes; one that takes text takes tokens as well.
    """

    def __init__(
        self,
        columns: FeatureColumns | None,
        num_tokens: int,
        text: TextReader | None,
        window: WindowFit,
        limits: Limits,
        text_work: TextWork,
    ) -> None:
        self._columns = columns
        self._num_tokens = num_tokens
        self._text = text
        self._window = window
        self._limits = limits
        self._text_work = text_work
        self.kind: InputKind = "steps" if columns else "text" if text else "tokens"

    async def read(
        self, sequences: Sequence[SequenceInput], fields: Sequence[str], every: bool, caller: Caller
    ) -> list[NetworkInput]:
        """Return what the network gets of each sequence.

        Args:
            sequences: at least one.
            fields: path of each in the request.
            every: whether the output of every time step is wanted, so that spans are one a step.
            caller: who asks.

        Raises:
            InvalidArgument: a sequence is not what the model takes.
            DeadlineExceeded: the deadline passed while texts waited for a thread.
        """
        for one, field in zip(sequences, fields, strict=True):
            self._check_kind(one, field)
        read = await self._read_texts(sequences, fields, every, caller)
        pace, found = Pace(), []
        for index, (one, field) in enumerate(zip(sequences, fields, strict=True)):
            found.append(self._one(one, field, read.get(index), every))
            await pace.rest()
        return found

    def _check_kind(self, one: SequenceInput, field: str) -> None:
        taken: tuple[InputKind, ...] = ("text", "tokens") if self.kind == "text" else (self.kind,)
        kinds = one.kinds
        if len(kinds) != 1 or kinds[0] not in taken:
            found = " and ".join(kinds) or "neither text, tokens nor steps"
            raise InvalidArgument(field, f"expected {' or '.join(taken)}, as the model takes, found {found}")
        if one.text is not None:
            check_count(f"{field}.text", "characters", len(one.text), self._limits.text_length)

    async def _read_texts(
        self, sequences: Sequence[SequenceInput], fields: Sequence[str], every: bool, caller: Caller
    ) -> dict[int, Tokens]:
        """Return the tokens of the sequences that are texts, by their place in the request."""
        texts = {index: one.text for index, one in enumerate(sequences) if one.text is not None}
        if not texts:
            return {}
        reader = self._text
        assert reader is not None, "a text is taken by a model that reads texts alone"
        given, paths = list(texts.values()), [f"{fields[index]}.text" for index in texts]

        def tokens_of(part: slice) -> list[Tokens]:
            return reader.read(given[part], paths[part], every)

        read = await self._text_work.run(tokens_of, list(map(len, given)), caller)
        return dict(zip(texts, read, strict=True))

    def _one(self, one: SequenceInput, field: str, read: Tokens | None, every: bool) -> NetworkInput:
        spans: list[Span] = []
        inputs: NDArray[Any]
        if read is not None:
            assert one.text is not None, "tokens were read of a text"
            field = f"{field}.text"
            inputs, spans = read.ids, read.spans or []
        elif one.tokens is not None:
            field = f"{field}.tokens.ids"
            inputs = self._checked_tokens(one.tokens, field)
        else:
            assert one.steps is not None, "the kind was checked"
            assert self._columns is not None, "the kind was checked"
            field = f"{field}.steps.values"
            check_count(field, "time steps", len(one.steps), self._limits.observations)
            inputs = self._columns.features(one.steps, field)
        fitted = self._window.fit(inputs, field)
        spans = spans[fitted.kept] if every or one.text is None else [(0, len(one.text))]
        return NetworkInput(fitted.inputs, fitted.rows, spans, len(inputs))

    def _checked_tokens(self, tokens: NDArray[np.int64], field: str) -> NDArray[np.int64]:
        check_count(field, "tokens", len(tokens), self._limits.text_length)
        is_wrong = (tokens < 0) | (tokens >= self._num_tokens)
        if is_wrong.any():
            index = int(is_wrong.argmax())
            raise InvalidArgument(
                f"{field}[{index}]",
                f"expected a token id of 0..{self._num_tokens - 1}, found {tokens[index]}",
            )
        return tokens
