"""Chooses how a model's texts are normalized: which typographic characters it reads as plain ones.

People type what keyboards and word processors make of their text: curved quotation marks, dashes, spaces that
do not break, invisible marks. A model that has never seen them would refuse them, or take the word around
them for an unknown one. `service.contract.normalizing` applies what is chosen here.
"""

import unicodedata
from collections.abc import Iterable, Iterator

from service.contract.normalizing import Normalizer
from service.contract.sections import Normalization

COMPOSED = Normalization(form="NFC")

_QUOTES = {
    "'": "\u2018\u2019\u201b\u02bc\u2032\u00b4\uff40",
    '"': "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb",
    ",": "\u201a",
}
_DASHES = {"-": "\u2010\u2011\u2012\u2013\u2212", "--": "\u2014\u2015"}
_SPACES = {
    " ": "\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
}
_LINES = {"\n": "\u0085\u2028\u2029"}
_OTHERS = {"...": "\u2026", "..": "\u2025", "s": "\u017f"}
# Soft hyphen, zero-width space and joiners, directional marks, byte-order mark, variation selectors.
_INVISIBLE = {"": "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufe0e\ufe0f\ufeff"}


def _compatible(first: int, last: int) -> Iterator[tuple[str, str]]:
    """Yield characters and what they are compatible with by Unicode: ligatures, full-width forms."""
    for point in range(first, last + 1):
        yield chr(point), unicodedata.normalize("NFKC", chr(point))


# Every character that is read as another text, and that text.
TYPOGRAPHIC: dict[str, str] = {
    **{
        character: plain
        for group in (_QUOTES, _DASHES, _SPACES, _LINES, _OTHERS, _INVISIBLE)
        for plain, characters in group.items()
        for character in characters
    },
    **dict(_compatible(0xFB00, 0xFB06)),
    **dict(_compatible(0xFF01, 0xFF5E)),
}


def choose(kept: Iterable[str], made: Iterable[str] | None = None) -> Normalization:
    """Choose a model's normalization.

    Args:
        kept: characters that the model knows as they are.
        made: characters that replacements may consist of; None: any. A character whose replacement holds
            others stays as it is.
    """
    known, usable = set(kept), None if made is None else set(made)
    return Normalization(
        line_ends="\r" not in known and (usable is None or "\n" in usable),
        form="NFC",
        characters={
            character: plain
            for character, plain in TYPOGRAPHIC.items()
            if character not in known and (usable is None or usable.issuperset(plain))
        },
    )


def typeset(text: str, rules: Normalization) -> str:
    """Return a text as a word processor may write it, which the rules normalize to the given one.

    Each mark is replaced once, in the order of the rules, and a mark without a meaning is put first.
    """
    found = text
    marks = [(one, plain) for one, plain in rules.characters.items() if not plain.isalnum()]
    for character, plain in sorted(marks, key=lambda mark: -len(mark[1])):
        found = found.replace(plain, character, 1) if plain else found
    found = next((one for one, plain in marks if not plain), "") + found
    return found if Normalizer(rules).normalized(found) == text else text
