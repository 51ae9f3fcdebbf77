"""Makes tokenizers of lists of words: one token a word, split at white space."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from service.contract import spec

# Characters that nobody types, of Unicode's private use areas.
_PRIVATE = ((0xE000, 0xF8FF), (0xF0000, 0xFFFFD))


class Words(NamedTuple):
    """A tokenizer, and what texts go through before it.

    Attributes:
        model: the tokenizer; or characters in the order of their ids.
        normalization: changes of a text before it.
        notes: sentences on what was assumed.
    """

    model: Tokenizer | str
    normalization: spec.Normalization | None
    notes: tuple[str, ...]


def placeholders(taken: Sequence[str]) -> Iterator[str]:
    """Yield characters that stand for token ids without one of their own."""
    used = set(taken)
    points = chain.from_iterable(range(first, last + 1) for first, last in _PRIVATE)
    return (character for character in map(chr, points) if character not in used)


def word_level(ids: Mapping[str, int], size: int, unknown: str | None, *, is_lower: bool) -> Tokenizer:
    """Return a tokenizer of words between white space.

    Args:
        ids: token ids of words, each below `size`.
        size: number of token ids; those without a word get a name that no text has.
        unknown: the word whose token stands for those that are not known; None: there is none.
        is_lower: texts are made lower-case.
    """
    known = dict(ids)
    missing = sorted(set(range(size)) - set(known.values()))
    # White space within keeps these names from being words of a text.
    known.update((f"<unused {token}>", token) for token in missing)
    made = Tokenizer(models.WordLevel(known, unk_token=unknown or "<no unknown token>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if is_lower:
        made.normalizer = normalizers.Lowercase()
    return made
