"""Makes the tokenizer of a classifier from the texts of its training part.

All of them read compatible characters as one and letters as small ones, and have an unknown token of id 0.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from training.data import subwords
from training.data.tokenizing import (
    AUTO_SHARE,
    BYTES,
    MIN_FREQUENCY,
    UNKNOWN,
    UNKNOWN_ID,
    Kind,
    Tokenizing,
    parted,
    unknown_of,
)

# Numbers of tokens that can be asked for, and those that are taken where none is asked for.
SIZES: dict[Kind, range | None] = {
    "word": range(2, 1_000_001),
    "bpe": range(BYTES + 64, 200_001),
    "characters": range(2, 200_001),
    "bytes": None,
}
WORDS = 30_000
CHARACTERS = 20_000
# Sub-words: one for so many characters of the training part, within these bounds.
CHARACTERS_A_SUBWORD = 50
FEWEST_SUBWORDS, MOST_SUBWORDS = 1_000, 8_000
TITLES: dict[Kind, str] = {
    "word": "lower-case words and signs",
    "bpe": "lower-case sub-words (byte-pair encoding)",
    "characters": "lower-case characters",
    "bytes": "bytes",
}


class LabelTokenizer(NamedTuple):
    """A tokenizer and its kind."""

    kind: Kind
    tokenizer: Tokenizer


def label_tokenizer(wanted: Tokenizing, texts: Sequence[str]) -> LabelTokenizer:
    """Make the tokenizer that is wanted.

    Args:
        wanted: its kind, which `auto` chooses by `chosen_kind`, and its size.
        texts: normalized, of the training part.

    Raises:
        TrainingError: the kind has no such size.
    """
    kind = chosen_kind(texts) if wanted.choice == "auto" else wanted.choice
    wanted.check(kind, SIZES[kind])
    size = wanted.vocabulary
    match kind:
        case "word":
            return LabelTokenizer(kind, word_tokenizer(texts, size or WORDS))
        case "bpe":
            made = subwords.byte_pairs(
                texts, size or num_subwords(texts), has_unknown=True, normalizer=_normalizer()
            )
            return LabelTokenizer(kind, made)
        case "characters":
            return LabelTokenizer(kind, character_tokenizer(texts, size or CHARACTERS))
        case "bytes":
            return LabelTokenizer(kind, subwords.single_bytes(has_unknown=True, normalizer=_normalizer()))


def chosen_kind(texts: Sequence[str]) -> Kind:
    """Choose by the training part alone: words where most words of its last fifth are among those of the
    rest, else sub-words.
    """
    made_from, tried_on = parted(texts)
    share = unknown_of(word_tokenizer(made_from), tried_on).share
    return "word" if share <= AUTO_SHARE else "bpe"


def num_subwords(texts: Sequence[str]) -> int:
    """Return how many sub-words a training part is worth."""
    return min(MOST_SUBWORDS, max(FEWEST_SUBWORDS, sum(map(len, texts)) // CHARACTERS_A_SUBWORD))


def word_tokenizer(texts: Sequence[str], size: int = WORDS) -> Tokenizer:
    """Make the tokenizer of words and runs of signs that were seen at least twice; all others are unknown.

    A word is a run of letters, marks, digits and low lines, so that combining marks are parts of words.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=MIN_FREQUENCY, special_tokens=[UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    assert tokenizer.token_to_id(UNKNOWN) == UNKNOWN_ID
    return tokenizer


def character_tokenizer(texts: Sequence[str], size: int = CHARACTERS) -> Tokenizer:
    """Make the tokenizer of characters that were seen at least twice, the most frequent ones."""
    normalizer = _normalizer()
    counts = Counter(chain.from_iterable(map(normalizer.normalize_str, texts)))
    often = sorted(one for one, count in counts.items() if count >= MIN_FREQUENCY)
    kept = sorted(often, key=lambda one: -counts[one])[: size - 1]
    return subwords.single_characters(kept, normalizer)


def _normalizer() -> normalizers.Normalizer:
    """Return what reads compatible characters, such as those of full or half width, as one, and capital
    letters as small ones.
    """
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
