"""Makes the tokenizer of a language model from its training part; nothing that it reads is unknown.

Texts keep their letters as they are, since the model writes them. A text is read in blocks, and at most
`SAMPLE` characters of it, spread over the whole, are kept for the tokenizer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from tokenizers import Tokenizer

from service.contract.spec import Normalization
from training.data import subwords
from training.data.normalization import choose
from training.data.tokenizing import BYTES, Kind, Tokenizing, characters_of

# Kinds that a file of the `tokenizers` library holds; characters are a vocabulary in model.json.
FileKind = Literal["word", "bpe", "bytes"]
SIZES: dict[Kind, range | None] = {
    "word": range(BYTES + 64, 200_001),
    "bpe": range(BYTES + 64, 200_001),
    "characters": None,
    "bytes": None,
}
WORDS = 16_000
# Sub-words: one for so many characters of the training part, within these bounds.
CHARACTERS_A_SUBWORD = 200
FEWEST_SUBWORDS, MOST_SUBWORDS = 512, 8_000
# Tokens for each different character, beside the bytes: half of them may be the characters themselves. A
# Chinese text of 200,000 characters loses 3.85 nats a character with 4,000 sub-words, 4.48 with 1,000.
TOKENS_A_CHARACTER = 3
SAMPLE = 20_000_000
# Characters that are looked at, or left out, together.
_STRETCH = 1 << 16
# `auto` takes characters while there are so few that each is seen often.
MOST_CHARACTERS = 256
TITLES: dict[FileKind, str] = {
    "word": "words, characters and bytes",
    "bpe": "sub-words (byte-pair encoding)",
    "bytes": "bytes",
}


def chosen_kind(wanted: Tokenizing, vocabulary: str) -> Kind:
    """Choose the kind: for `auto` characters where a text has few different ones, else sub-words.

    Args:
        wanted: by the user.
        vocabulary: the different characters of the training part.

    Raises:
        TrainingError: the kind has no such size.
    """
    if wanted.choice == "auto":
        kind: Kind = "characters" if len(vocabulary) <= MOST_CHARACTERS and not wanted.vocabulary else "bpe"
    else:
        kind = wanted.choice
    wanted.check(kind, SIZES[kind])
    return kind


def language_tokenizer(
    kind: FileKind, texts: Iterable[str], characters: int, size: int | None = None
) -> Tokenizer:
    """Make a tokenizer.

    Args:
        kind: of the tokenizer.
        texts: the training part in blocks, normalized; read once.
        characters: number of its characters.
        size: largest number of tokens; None: by the number of characters.
    """
    if kind == "bytes":
        return subwords.single_bytes(has_unknown=False)
    kept = list(sample(texts, characters))
    if kind == "bpe":
        return subwords.byte_pairs(kept, size or num_subwords(kept, characters), has_unknown=False)
    counts: Counter[str] = Counter()
    for block in kept:
        counts.update(block)
    often = sorted(sorted(counts), key=lambda one: -counts[one])
    return subwords.whole_words(kept, size or WORDS, often)


def num_subwords(texts: Iterable[str], characters: int) -> int:
    """Return how many sub-words a text is worth, by its size and by its alphabet.

    Args:
        texts: a sample of it.
        characters: number of its characters.
    """
    alphabet = BYTES + TOKENS_A_CHARACTER * len(characters_of(texts))
    return min(MOST_SUBWORDS, max(FEWEST_SUBWORDS, alphabet, characters // CHARACTERS_A_SUBWORD))


def sample(texts: Iterable[str], characters: int, limit: int = SAMPLE) -> Iterator[str]:
    """Yield stretches of a text, spread evenly over it, of about `limit` characters together.

    Args:
        texts: blocks of a text.
        characters: number of its characters.
        limit: of characters; a shorter text is yielded whole.
    """
    due = 0.0
    share = min(1.0, limit / max(1, characters))
    for block in texts:
        if share == 1.0:
            yield block
            continue
        for start in range(0, len(block), _STRETCH):
            stretch = block[start : start + _STRETCH]
            due += share * len(stretch)
            if due >= len(stretch):
                due -= len(stretch)
                yield stretch


def rules_for(kind: FileKind, vocabulary: str) -> Normalization:
    """Return how callers' texts are normalized for a tokenizer.

    Args:
        kind: of the tokenizer.
        vocabulary: the characters of the text that was trained on; a typographic one that is not among them
            is read as the plain one.
    """
    rules = choose(vocabulary, vocabulary)
    if kind == "bytes":
        return rules
    # The tokenizer writes a space so.
    return replace_rules(rules, {subwords.SPACE: "_"})


def replace_rules(rules: Normalization, more: dict[str, str]) -> Normalization:
    """Return rules with further replacements."""
    return Normalization(line_ends=rules.line_ends, form=rules.form, characters={**rules.characters, **more})
