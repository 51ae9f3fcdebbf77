"""Makes a tokenizer of a vocabulary file: one token a line, the line's number from 0 is the token's id."""

import string
from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.decoders import WordPiece as WordPieceDecoder

from service.contract import spec
from training.convert.meaning.word_index import UNKNOWN_WORDS
from training.convert.meaning.words import Words, word_level
from training.errors import TrainingError

_PIECE = "##"
# What stands for an unknown word and for padding in the vocabulary of Keras's TextVectorization.
_VECTORIZATION = ("", "[UNK]")


def from_tokens(tokens: Sequence[object], size: int, option: str) -> Words:
    """Return the tokenizer of a list of tokens.

    Pieces of words that begin with `##` make it WordPiece, as BERT has it; "" and "[UNK]" in front make it
    that of Keras's TextVectorization; else words between white space are tokens.

    Raises:
        TrainingError: it has not one different text for each token id of the network.
    """
    if not all(isinstance(one, str) for one in tokens):
        raise TrainingError(f"{option}: expected a list of texts, one a token id")
    words = [str(one) for one in tokens]
    if len(words) != size:
        raise TrainingError(
            f"{option}: expected {size} tokens, one a token id of the network, found {len(words)}"
        )
    ids = {word: token for token, word in enumerate(words)}
    if len(ids) != size:
        twice = next(word for token, word in enumerate(words) if ids[word] != token)
        raise TrainingError(f"{option}: expected different tokens, found {twice!r} twice")
    unknown = next((word for word in UNKNOWN_WORDS if word in ids), None)
    is_lower = not any(word != word.lower() for word in words if not _is_special(word))
    if unknown and any(word.startswith(_PIECE) for word in words):
        return _pieces(ids, unknown, is_lower)
    if tuple(words[:2]) == _VECTORIZATION:
        return _vectorized(ids, size)
    made = word_level(ids, size, unknown, is_lower=is_lower)
    return Words(made, None, _notes(is_lower, "split at white space", unknown))


def _is_special(word: str) -> bool:
    return word in UNKNOWN_WORDS or (word[:1] in "<[" and word[-1:] in ">]")


def _notes(is_lower: bool, split: str, unknown: str | None) -> tuple[str, ...]:
    case = "lower-cased" if is_lower else "left in their case"
    found = f"texts are {case} and {split}"
    return (found,) if unknown else (found, "texts with words that the vocabulary lacks are refused")


def _pieces(ids: dict[str, int], unknown: str, is_lower: bool) -> Words:
    made = Tokenizer(models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=is_lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = WordPieceDecoder(prefix=_PIECE)
    return Words(made, None, _notes(is_lower, "split into pieces of words as BERT does", unknown))


def _vectorized(ids: dict[str, int], size: int) -> Words:
    """Return TextVectorization's own standardization: lower case, no punctuation."""
    words = {word: token for word, token in ids.items() if word}
    made = word_level(words, size, "[UNK]", is_lower=True)
    rules = spec.Normalization(characters=dict.fromkeys(string.punctuation, ""))
    note = "texts are standardized as Keras's TextVectorization does: lower case, no punctuation"
    return Words(made, rules, (note,))
