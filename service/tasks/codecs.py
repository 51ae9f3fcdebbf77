"""Converts between the text and the tokens of a language model: characters, or those of a tokenizer."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.errors import InvalidArgument, StateNeeded
from service.tasks.detokenizer import Detokenized, Detokenizer, context_after, token_texts
from service.tasks.ledgers import CharacterLedger, Ledger, TokenLedger
from service.tasks.states import NEW_TEXT, TextContext
from service.tasks.text import Characters
from service.tasks.unknown_text import TextCoverage

# Bytes of a character in UTF-8 at most.
_CHARACTER_BYTES = 4


class TextStream(Protocol):
    """Decodes the tokens of one generation."""

    @property
    def context(self) -> TextContext:
        """State of the text before the next token."""
        ...

    def push(self, ids: Sequence[int]) -> Detokenized:
        """Take tokens and return the text that they release."""
        ...

    def flush(self) -> Detokenized:
        """Return what is held back: the text ends here."""
        ...

    def pause(self) -> Detokenized:
        """Wait no longer for the rest of a character: another generation goes on from `context`."""
        ...


class Codec(Protocol):
    """Text to tokens and back.

    Attributes:
        normalizer: normalizes callers' texts.
        is_exact: a text that was generated determines its tokens.
        is_quick: encoding takes no longer than looking characters up, so that the event loop may do it.
        max_token_bytes: bytes of the longest text of a token in UTF-8.
    """

    normalizer: Normalizer
    is_exact: bool
    is_quick: bool
    max_token_bytes: int

    def encode(self, text: str, field: str, *, begins: bool) -> NDArray[np.signedinteger]:
        """Return the tokens of a caller's text, (T,); `begins`: nothing stands before it.

        Raises:
            InvalidArgument: a part of the text has no token; names its position.
            ModelFailure: the tokenizer failed.
        """
        ...

    def encode_own(self, text: str, field: str) -> NDArray[np.signedinteger]:
        """Return the tokens of a text that the model has generated, (T,).

        Raises:
            InvalidArgument: the text does not determine them, or the model cannot have generated it.
        """
        ...

    def stream(self, context: TextContext, prompt: NDArray[np.signedinteger]) -> TextStream:
        """Return what decodes a generation that follows a prompt."""
        ...

    def ledger(self) -> Ledger:
        """Return what counts the tokens of a generation."""
        ...


def codec_of(model: str, section: spec.Generation, tokenizer: Tokenizer | None) -> Codec:
    """Return the codec of a language model.

    Args:
        model: name of the model, for error texts.
        section: the model's.
        tokenizer: of its file, if it has one.

    Raises:
        ModelRefused: the tokenizer's text is not that of its tokens one after the other.
    """
    normalizer = Normalizer(section.text.normalization)
    if isinstance(section.text, spec.Characters):
        characters = Characters(model, section.text.vocabulary, normalizer)
        return CharacterCodec(characters, section.end_tokens)
    assert tokenizer is not None, "the file of a tokenizer was read"
    return TokenizerCodec(model, tokenizer, normalizer, section.end_tokens)


class CharacterCodec:
    """Codec of a model whose tokens are characters.

    Args:
        characters: the vocabulary.
        end_tokens: ids that no generated text holds.
    """

    is_exact = is_quick = True
    max_token_bytes = _CHARACTER_BYTES

    def __init__(self, characters: Characters, end_tokens: Sequence[int] = ()) -> None:
        self._characters = characters
        self._end_tokens = list(end_tokens)
        self.normalizer = characters.normalizer

    def encode(self, text: str, field: str, *, begins: bool) -> NDArray[np.signedinteger]:  # noqa: ARG002
        """Return the ids of the characters."""
        return self._characters.encode(text, field)

    def encode_own(self, text: str, field: str) -> NDArray[np.signedinteger]:
        """Return the ids of the characters of a text that the model has generated."""
        tokens = self._characters.encode_own(text, field)
        if self._end_tokens and np.isin(tokens, self._end_tokens).any():
            raise InvalidArgument(field, "expected text that was sent, found an end token in it")
        return tokens

    def stream(self, context: TextContext, prompt: NDArray[np.signedinteger]) -> TextStream:  # noqa: ARG002
        """Return a stream that looks characters up."""
        return CharacterStream(self._characters)

    def ledger(self) -> Ledger:
        """Return a ledger of one token a character."""
        return CharacterLedger()


class CharacterStream:
    """Decodes tokens that are characters.

    Args:
        characters: the vocabulary.
    """

    context = NEW_TEXT

    def __init__(self, characters: Characters) -> None:
        self._characters = characters

    def push(self, ids: Sequence[int]) -> Detokenized:
        """Return a character for each token."""
        places = range(1, len(ids) + 1)
        return Detokenized(self._characters.decode(ids), places, places)

    def flush(self) -> Detokenized:
        """Return nothing: no character is held back."""
        return Detokenized("", (), ())

    pause = flush


class TokenizerCodec:
    """Codec of a model with a tokenizer's file.

    Args:
        model: name of the model, for error texts.
        tokenizer: turns text into ids.
        normalizer: normalizes texts before the tokenizer does.
        hidden: tokens that are not shown, beside the special ones of the file.

    Raises:
        ModelRefused: a text is not that of its tokens one after the other.
    """

    is_exact = is_quick = False

    def __init__(
        self, model: str, tokenizer: Tokenizer, normalizer: Normalizer, hidden: Sequence[int] = ()
    ) -> None:
        self._model = model
        self.normalizer = normalizer
        self._texts = token_texts(tokenizer, hidden)
        self._coverage = TextCoverage(model, tokenizer)
        self.max_token_bytes = self._texts.max_bytes

    def encode(self, text: str, field: str, *, begins: bool) -> NDArray[np.signedinteger]:
        """Return the tokens that the tokenizer makes of a text."""
        return self._coverage.encode(text, self.normalizer, field, begins=begins)

    def encode_own(self, text: str, field: str) -> NDArray[np.signedinteger]:
        """Refuse any text but an empty one: different tokens may have the same text."""
        if text:
            raise StateNeeded(field, self._model, len(text))
        return np.zeros(0, np.int32)

    def stream(self, context: TextContext, prompt: NDArray[np.signedinteger]) -> TextStream:
        """Return a stream whose first token follows the prompt's last one, or the context."""
        return Detokenizer(self._texts, context_after(self._texts, context, prompt.tolist()))

    def ledger(self) -> Ledger:
        """Return a ledger of tokens."""
        return TokenLedger()
