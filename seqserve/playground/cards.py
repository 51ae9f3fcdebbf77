"""Prepares a model card for a page: without front matter and HTML, with its pictures inside of the text."""

import re
from base64 import b64encode
from typing import Final

from seqserve.results import ModelCard

# YAML between two lines of three dashes at the top, which is for programs.
_FRONT_MATTER: Final = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
# Both parts end before the next ![, so that a card of nothing but those takes time in its length, not in the
# square of it.
_PICTURE: Final = re.compile(r"!\[(?P<about>(?:(?!!\[)[^\]\n])*)\]\((?P<name>(?:(?!!\[)[^)\s])*)\)")


# Code, which is shown as it stands, and the beginning of an HTML tag or comment elsewhere.
_CODE_OR_TAG: Final = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|<(?=[A-Za-z/!?])", re.DOTALL)


def markdown_of(card: ModelCard) -> str:
    """Return the text of a card with its pictures as data URLs; one that did not come is named instead.

    A picture stands where it is shown first and is named afterwards: a short card may show a large one
    thousands of times. HTML is shown as text: it might load pictures from other hosts.
    """
    left = dict(card.pictures)

    def shown(found: re.Match[str]) -> str:
        about, name = found["about"], found["name"]
        png = left.pop(name, None)
        if png is None:
            where = "stands above" if name in card.pictures else "is not on the server"
            return f"*(picture {name.replace('*', '')} {where})*"
        return f"![{about}](data:image/png;base64,{b64encode(png).decode()})"

    text = _FRONT_MATTER.sub("", card.markdown)
    return _PICTURE.sub(shown, _CODE_OR_TAG.sub(lambda found: found["code"] or "&lt;", text)).strip()
