"""Chooses how the texts of a classifier are normalized: by the scripts of its training part.

Beside the typographic characters that every model reads as plain ones, spellings of one word become one where
a script has several: vowel points that are mostly left out, the final form of a letter, and the small forms
of letters, which differ between languages. The service applies the same rules to callers' texts.
"""

import re
from collections.abc import Iterable

from service.contract.spec import Normalization
from training.data.normalization import choose

# Short vowels, their doubling and absence, the dagger alif, and the stroke that only lengthens a word.
_ARABIC = "".join(map(chr, [0x0640, *range(0x064B, 0x0653), 0x0670]))
# Cantillation marks and vowel points.
_HEBREW = "".join(map(chr, [*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, 0x05C4, 0x05C5, 0x05C7]))
_IS_ARABIC = re.compile("[\u0620-\u064a]")
_IS_HEBREW = re.compile("[\u05d0-\u05ea]")
_GREEK_FINAL_SIGMA = "\u03c2"
_DOTLESS, _DOTTED = "\u0131", "\u0130"
# Of the letters i with and without a dot: in Turkish and Azerbaijani about a third have none. A text in
# another language holds names alone.
_DOTLESS_SHARE = 0.1


def rules_for(texts: Iterable[str]) -> Normalization:
    """Choose the normalization of a classifier.

    Args:
        texts: of the training part, as they are.
    """
    rules = choose(kept=())
    more = _by_script("\n".join(texts))
    table = str.maketrans(more)
    # A ligature or a full-width letter becomes what its plain letters become.
    plain = {one: text.translate(table) for one, text in rules.characters.items()}
    return Normalization(line_ends=rules.line_ends, form=rules.form, characters=plain | more)


def _by_script(text: str) -> dict[str, str]:
    """Return the further characters to replace, and what replaces them."""
    found: dict[str, str] = {}
    if _IS_ARABIC.search(text):
        found |= dict.fromkeys(_ARABIC, "")
    if _IS_HEBREW.search(text):
        found |= dict.fromkeys(_HEBREW, "")
    if _GREEK_FINAL_SIGMA in text:
        found[_GREEK_FINAL_SIGMA] = "\u03c3"
    dotless = text.count(_DOTLESS)
    if dotless and dotless >= _DOTLESS_SHARE * (dotless + text.count("i")):
        # The tokenizer's small letter of I is i, and that of the dotted I two characters.
        found |= {"I": _DOTLESS, _DOTTED: "i"}
    return found
