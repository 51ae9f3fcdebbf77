"""Finds the words of a text in any script, for methods that count words."""

import re
import unicodedata
from collections.abc import Iterator

from tokenizers import pre_tokenizers

# Runs of letters with their marks, digits and low lines; runs of signs. Python's own \\w splits words at
# combining marks, which Devanagari and Thai have within most words.
_WORDS = pre_tokenizers.Whitespace()
# Letters of scripts that are written without spaces between words: Thai to Tibetan, Myanmar, Khmer, kana,
# and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def words_of(text: str) -> list[str]:
    """Return the words and runs of signs of a text, in order.

    Where a script has no spaces between words, each letter with its marks counts as one.
    """
    return [part for word, _ in _WORDS.pre_tokenize_str(text) for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    """Yield a word, or its letters where they are of a script without spaces, and what is between them."""
    if not _UNSPACED.search(word):
        yield word
        return
    part, was_unspaced = "", False
    for character in word:
        if unicodedata.category(character).startswith("M"):
            part += character
            continue
        is_unspaced = _UNSPACED.match(character) is not None
        if part and (is_unspaced or was_unspaced):
            yield part
            part = ""
        part += character
        was_unspaced = is_unspaced
    yield part
