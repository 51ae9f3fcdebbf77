"""Encodes texts with a tokenizer, and refuses those of which a part has no token."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE

from service.contract.normalizing import Normalizer
from service.errors import InvalidArgument
from service.tasks.detokenizer import BYTE_OF_CHARACTER
from service.tasks.text import Untokenized, encodings_of


class TextCoverage:
    """Encodes texts; a part that has no token is refused, which a tokenizer itself may drop.

    A tokenizer has a token for any text if it has one for unknown parts. Without it BPE drops characters
    silently, and the other kinds raise.

    Args:
        model: name of the model, for error texts.
        tokenizer: turns text into ids.
    """

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        kind = tokenizer.model
        self._vocabulary = frozenset(tokenizer.get_vocab())
        self._is_bpe = isinstance(kind, BPE)
        self._prefix = (self._is_bpe and kind.continuing_subword_prefix) or ""
        self._suffix = (self._is_bpe and kind.end_of_word_suffix) or ""
        self._has_fallback = self._is_bpe and kind.byte_fallback
        self._whole_words = self._vocabulary if self._is_bpe and kind.ignore_merges else frozenset()
        self._drops = self._is_bpe and kind.unk_token is None and not self._has_all_bytes()

    def _has_all_bytes(self) -> bool:
        """Return whether every byte has a token, of a byte-level alphabet or of byte fallback."""
        if self._has_fallback and all(_fallback(byte) in self._vocabulary for byte in range(0x100)):
            return True
        is_byte_level = "ByteLevel" in repr(self._tokenizer.pre_tokenizer)
        return is_byte_level and BYTE_OF_CHARACTER.keys() <= self._vocabulary

    def encode(
        self, text: str, normalizer: Normalizer, field: str, *, begins: bool
    ) -> NDArray[np.signedinteger]:
        """Return the token ids of a text, int32 (T,), T >= 0.

        Args:
            text: as the caller sends it.
            normalizer: normalizes it first.
            field: of the request.
            begins: add the tokens that the tokenizer puts before a text.

        Raises:
            InvalidArgument: a part has no token; names its position.
            ModelFailure: the tokenizer failed.
        """
        [encoding] = self.encodings([text], [field], normalizer, begins=begins)
        return np.array(encoding.ids, np.int32)

    def encodings(
        self,
        texts: Sequence[str],
        fields: Sequence[str],
        normalizer: Normalizer,
        *,
        with_offsets: bool = False,
        begins: bool = True,
    ) -> list[Encoding]:
        """Return the tokenizer's encodings of texts.

        Args:
            texts: as the caller sends them.
            fields: of the request, one a text.
            normalizer: normalizes them first.
            with_offsets: whether the characters of each token are wanted, which costs more.
            begins: add the tokens that the tokenizer puts before a text.

        Raises:
            InvalidArgument: a part of a text has no token; names its position.
            ModelFailure: the tokenizer failed.
        """
        if self._drops:
            self._check(texts, fields, normalizer)
        normalized = [normalizer.normalized(text) for text in texts]
        try:
            return encodings_of(self._tokenizer, normalized, with_offsets, begins)
        except Untokenized:
            self._check(texts, fields, normalizer)
            raise

    def _check(self, texts: Sequence[str], fields: Sequence[str], normalizer: Normalizer) -> None:
        """Raise InvalidArgument for the first text of which a part has no token."""
        for text, field in zip(texts, fields, strict=True):
            normalized = normalizer.normalized(text)
            if (place := self._gap(normalized)) is not None:
                raise self._unknown(text, normalized, normalizer, place, field)

    def _gap(self, text: str) -> int | None:
        """Return the position of the first part of a text without a token, None if all have one."""
        tokenizer = self._tokenizer
        if tokenizer.normalizer is not None:
            text = tokenizer.normalizer.normalize_str(text)
        pieces = (
            [(text, (0, len(text)))]
            if tokenizer.pre_tokenizer is None
            else tokenizer.pre_tokenizer.pre_tokenize_str(text)
        )
        for piece, (start, _) in pieces:
            if (place := self._gap_in(piece)) is not None:
                # A piece of a byte-level alphabet has more characters than its text.
                return start + place if text[start : start + len(piece)] == piece else start
        return None

    def _gap_in(self, piece: str) -> int | None:
        """Return the position in a word of its first part without a token, None if all have one."""
        if self._is_bpe:
            return None if piece in self._whole_words else self._first_unknown(piece)
        try:
            self._tokenizer.model.tokenize(piece)
        except Exception:
            return 0
        return None

    def _first_unknown(self, piece: str) -> int | None:
        """Return the position of the first character that BPE, which starts from characters, has not."""
        last = len(piece) - 1
        for place, one in enumerate(piece):
            form = (self._prefix if place else "") + one + (self._suffix if place == last else "")
            if form not in self._vocabulary and not self._falls_back(form):
                return place
        return None

    def _falls_back(self, form: str) -> bool:
        return self._has_fallback and all(_fallback(byte) in self._vocabulary for byte in form.encode())

    def _unknown(
        self, text: str, normalized: str, normalizer: Normalizer, place: int, field: str
    ) -> InvalidArgument:
        if normalized is not text:
            place = normalizer.place(text, min(place, len(normalized) - 1))
        place = min(place, len(text) - 1)
        return InvalidArgument(
            field,
            f"character {text[place]!r} (U+{ord(text[place]):04X}) at position {place} begins a part "
            f"without a token in model {self._model}, whose tokenizer has none for unknown text",
        )


def _fallback(byte: int) -> str:
    return f"<0x{byte:02X}>"
