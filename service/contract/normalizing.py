"""Normalizes texts as a model's section says, and finds the character that a normalized one comes from.

Training and the service both use it, so that a model is asked what it was trained on.
"""

import re
import unicodedata
from collections.abc import Callable

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
