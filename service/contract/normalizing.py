"""Normalizes texts as a model's section says, and finds the character that a normalized one comes from.

Training and the service both use it, so that a model is asked what it was trained on.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import accumulate

from service.contract.sections import Normalization


class Normalizer:
    """Applies one model's normalization.

    Args:
        rules: the model's; None leaves every text as it is.
    """

    def __init__(self, rules: Normalization | None) -> None:
        self._is_idle = rules in (None, Normalization())
        rules = rules or Normalization()
        self._has_line_ends = rules.line_ends
        self._is_composing = rules.form == "NFC"
        self._characters = str.maketrans(dict(rules.characters))
        self._has_ascii = any(map(str.isascii, rules.characters))
        # A class of no character matches nowhere.
        self._replaced = re.compile(
            "[" + re.escape("".join(rules.characters)) + "]" if rules.characters else r"(?!)"
        )

    def normalized(self, text: str) -> str:
        """Return the normalized text; normalizing it again changes nothing."""
        if self._is_idle:
            return text
        text = self._with_newlines(text)
        if text.isascii() and not self._has_ascii:
            return text
        composed = self._composed(text)
        if not self._replaced.search(composed):
            return composed
        # A mark that was dropped may have stood between a letter and its accent.
        return self._composed(composed.translate(self._characters))

    def place(self, text: str, position: int) -> int:
        """Return the index of the character of a text that a position in its normalized form comes from.

        The time is that of normalizing the text a few times, whatever the position.
        """
        lines = self._with_newlines(text)
        composed = self._composed(lines)
        position = self._before_composing(composed.translate(self._characters), position)
        position = _place(composed, lambda part: len(part.translate(self._characters)), position)
        position = self._before_composing(lines, position)
        if self._has_line_ends:
            position = _place(text, lambda part: len(part) - part.count("\r\n"), position)
        return position

    def places(self, text: str) -> list[int]:
        """Return `place` of every position in the normalized form of a text, and its length at the end.

        The time is that of normalizing the text a few times, and of a step for each character.
        """
        lines = self._with_newlines(text)
        composed = self._composed(lines)
        translated = composed.translate(self._characters)
        found = self._composing_places(translated)
        if self._characters:
            sources = _places(len(one.translate(self._characters)) for one in composed)
            found = [sources[place] for place in found]
        if self._is_composing:
            sources = self._composing_places(lines)
            found = [sources[place] for place in found]
        if lines is not text:
            sources = _places(
                not (one == "\n" and before == "\r") for before, one in zip("_" + text, text, strict=False)
            )
            found = [sources[place] for place in found]
        return found

    def _composing_places(self, text: str) -> list[int]:
        """Return for each character of a text's composed form the index of that which it comes from."""
        composed = self._composed(text)
        if composed == text:
            return list(range(len(text) + 1))
        ends = list(accumulate(map(_decomposed_length, text)))
        starts = accumulate(map(_decomposed_length, composed), initial=0)
        return [bisect_right(ends, start) for start in starts]

    def _before_composing(self, text: str, position: int) -> int:
        """Return the index of the character of a text that a position in its composed form comes from."""
        if not self._is_composing:
            return position
        # A decomposition is that of each character for itself, so that lengths add up.
        before = len(unicodedata.normalize("NFD", self._composed(text)[:position]))
        return _place(text, lambda part: len(unicodedata.normalize("NFD", part)), before)

    def _with_newlines(self, text: str) -> str:
        if self._has_line_ends and "\r" in text:
            return text.replace("\r\n", "\n").replace("\r", "\n")
        return text

    def _composed(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._is_composing else text


def _places(lengths: Iterable[int]) -> list[int]:
    """Return for each character of an image the index of that which it comes from, and their number."""
    found: list[int] = []
    count = 0
    for index, length in enumerate(lengths):
        found += [index] * length
        count = index + 1
    return [*found, count]


@lru_cache(maxsize=1 << 12)
def _decomposed_length(character: str) -> int:
    return len(unicodedata.normalize("NFD", character))


def _place(text: str, size: Callable[[str], int], position: int) -> int:
    """Return the index of the character within which a position falls.

    Args:
        text: looked at in halves, so that `size` sees each character about twice.
        size: returns the length of a part's image; those of parts that do not share a CRLF add up.
        position: index in the image of the whole text.
    """
    start, stop = 0, len(text)
    while stop - start > 1:
        middle = (start + stop) // 2
        middle += text[middle - 1 : middle + 1] == "\r\n"
        if middle == stop:
            break
        length = size(text[start:middle])
        if position < length:
            stop = middle
        else:
            position -= length
            start = middle
    return start
