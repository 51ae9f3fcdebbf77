"""Turns texts into token ids, and says which characters each token stands for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.errors import InvalidArgument
from service.tasks.text import Characters
from service.tasks.unknown_text import TextCoverage

# The first character and the one after the last, as indices into a caller's text.
Span = tuple[int, int]


class Tokens(NamedTuple):
    """Token ids of a text, integers (T,), and the characters of each; None: not asked for."""

    ids: NDArray[np.signedinteger]
    spans: list[Span] | None


class TextReader:
    """Reads texts for one model.

    Args:
        model: name of the model, for error texts.
        section: how its texts become tokens.
        tokenizer: what its file holds; None for single characters.
    """

    def __init__(
        self, model: str, section: spec.Characters | spec.TokenizerFile, tokenizer: Tokenizer | None
    ) -> None:
        self._normalizer = Normalizer(section.normalization)
        self._characters = (
            Characters(model, section.vocabulary, self._normalizer)
            if isinstance(section, spec.Characters)
            else None
        )
        self._coverage = None if tokenizer is None else TextCoverage(model, tokenizer)
        assert (tokenizer is None) == (self._characters is not None), "a tokenizer's file was read"

    def read(self, texts: Sequence[str], fields: Sequence[str], with_spans: bool) -> list[Tokens]:
        """Return the tokens of each text, at least one.

        Args:
            texts: texts as callers send them.
            fields: path of each in the request.
            with_spans: whether the characters of each token are wanted.

        Raises:
            InvalidArgument: a text has no token, or a part that the model does not know.
            ModelFailure: the tokenizer failed.
        """
        if self._characters is not None:
            read = [
                self._read_characters(self._characters, *pair, with_spans)
                for pair in zip(texts, fields, strict=True)
            ]
        else:
            read = self._tokenize(texts, fields, with_spans)
        for tokens, field in zip(read, fields, strict=True):
            if not len(tokens.ids):
                raise InvalidArgument(field, "expected at least one token, found none")
        return read

    def _read_characters(self, characters: Characters, text: str, field: str, with_spans: bool) -> Tokens:
        ids = characters.encode(text, field)
        if not with_spans:
            return Tokens(ids, None)
        count = len(ids)
        return Tokens(ids, self._in_text(text, zip(range(count), range(1, count + 1), strict=True)))

    def _tokenize(self, texts: Sequence[str], fields: Sequence[str], with_spans: bool) -> list[Tokens]:
        assert self._coverage is not None, "it is made with the tokenizer"
        encodings = self._coverage.encodings(texts, fields, self._normalizer, with_offsets=with_spans)
        return [
            Tokens(np.array(one.ids, np.int32), self._in_text(text, one.offsets) if with_spans else None)
            for one, text in zip(encodings, texts, strict=True)
        ]

    def _in_text(self, text: str, spans: Iterable[Span]) -> list[Span]:
        """Return the spans of a caller's text that spans of its normalized form come from."""
        if self._normalizer.normalized(text) == text:
            return list(spans)
        places = self._normalizer.places(text)
        return [
            (places[start], max(places[end], places[end - 1] + 1) if end > start else places[start])
            for start, end in spans
        ]
