"""Text to token ids and back: characters of a language model, a tokenizer of a classifier."""

import os
from collections.abc import Sequence

# The library's own threads would compete with onnxruntime's for the same cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from service.contract.normalizing import Normalizer
from service.errors import InvalidArgument, ModelFailure

_UNCHANGED = Normalizer(None)
_FAILED = "the tokenizer failed on a text"


class Untokenized(ModelFailure):
    """A tokenizer refused a text, most likely since it has no token for a part of it."""

    def __init__(self) -> None:
        super().__init__(_FAILED)


class Characters:
    """A vocabulary of single characters.

    Args:
        model: name of the model, for error texts.
        vocabulary: characters in the order of their ids.
        normalizer: normalizes callers' texts.

    Attributes:
        normalizer: the same.
    """

    def __init__(self, model: str, vocabulary: Sequence[str], normalizer: Normalizer = _UNCHANGED) -> None:
        self._model = model
        self._characters = vocabulary
        self.normalizer = normalizer
        # The id of each code point up to the largest one, and of everything beyond it: -1 where there is
        # none. The narrowest type holds them, since texts wait as ids, a thousand long ones if need be.
        self._ids = np.full(max(map(ord, vocabulary)) + 2, -1, np.min_scalar_type(-len(vocabulary)))
        self._ids[list(map(ord, vocabulary))] = np.arange(len(vocabulary))

    def encode(self, text: str, field: str) -> NDArray[np.signedinteger]:
        """Return the token ids of a caller's text, normalized, as `encode_own` does.

        Raises:
            InvalidArgument: a character is not in the vocabulary; names it by its place in the text.
        """
        normalized = self.normalizer.normalized(text)
        tokens = self._lookup(normalized)
        if len(unknown := np.flatnonzero(tokens < 0)):
            place = int(unknown[0])
            raise self._unknown(
                text, place if normalized is text else self.normalizer.place(text, place), field
            )
        return tokens

    def encode_own(self, text: str, field: str) -> NDArray[np.signedinteger]:
        """Return the token ids of a text that the model has written, character by character.

        Returns:
            (T,), the narrowest signed integers that hold the vocabulary.

        Raises:
            InvalidArgument: a character is not in the vocabulary.
        """
        tokens = self._lookup(text)
        if len(unknown := np.flatnonzero(tokens < 0)):
            raise self._unknown(text, int(unknown[0]), field)
        return tokens

    def _lookup(self, text: str) -> NDArray[np.signedinteger]:
        """Return the token ids of characters, -1 where there is none."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        tokens: NDArray[np.signedinteger] = self._ids[np.minimum(points, len(self._ids) - 1)]
        return tokens

    def _unknown(self, text: str, position: int, field: str) -> InvalidArgument:
        return InvalidArgument(
            field,
            f"character {text[position]!r} (U+{ord(text[position]):04X}) at position {position} "
            f"is not among the {len(self._characters)} of model {self._model}",
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return "".join(map(self._characters.__getitem__, tokens))


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], first: int = 0, normalizer: Normalizer = _UNCHANGED
) -> list[NDArray[np.int32]]:
    """Return the token ids of each text, int32 (T,), T >= 1.

    Args:
        tokenizer: turns text into ids.
        texts: texts of a request that follow each other.
        first: index of the first of them in the request.
        normalizer: normalizes them first.

    Raises:
        InvalidArgument: a text has no token.
        ModelFailure: the tokenizer panicked, or, Untokenized, refused a text.
    """
    encodings = encodings_of(tokenizer, [normalizer.normalized(text) for text in texts])
    inputs = [np.array(encoding.ids, np.int32) for encoding in encodings]
    for index, tokens in enumerate(inputs, first):
        if not len(tokens):
            raise InvalidArgument(f"texts[{index}]", "expected at least one token, found none")
    return inputs


def encodings_of(
    tokenizer: Tokenizer, texts: list[str], with_offsets: bool = False, begins: bool = True
) -> list[Encoding]:
    """Return a tokenizer's encodings of normalized texts.

    Args:
        tokenizer: turns text into ids.
        texts: normalized texts.
        with_offsets: whether the characters of each token are wanted, which costs more.
        begins: add the tokens that the tokenizer puts before a text.

    Raises:
        ModelFailure: the tokenizer panicked, or, Untokenized, refused a text.
    """
    encode = tokenizer.encode_batch if with_offsets else tokenizer.encode_batch_fast
    try:
        return encode(texts, add_special_tokens=begins)
    except Exception:
        # Its text may hold what the caller said.
        raise Untokenized from None
    except BaseException as error:
        # A panic in Rust is no Exception, so that it would end the loop or thread that runs this. Its class
        # cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise ModelFailure(_FAILED) from None
