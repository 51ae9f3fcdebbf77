"""Prepares a model card for a page: without its front matter, with its pictures inside of the text."""

import re
from base64 import b64encode
from typing import Final

from seqserve.results import ModelCard

# YAML between two lines of three dashes at the top, which is for programs.
_FRONT_MATTER: Final = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_PICTURE: Final = re.compile(r"!\[(?P<about>[^\]\n]*)\]\((?P<name>[^)\s]*)\)")


def markdown_of(card: ModelCard) -> str:
    """Return the text of a card with its pictures as data URLs; one that did not come is named instead."""

    def shown(found: re.Match[str]) -> str:
        about, name = found["about"], found["name"]
        png = card.pictures.get(name)
        if png is None:
            return f"*(picture {name.replace('*', '')} is not on the server)*"
        return f"![{about}](data:image/png;base64,{b64encode(png).decode()})"

    return _PICTURE.sub(shown, _FRONT_MATTER.sub("", card.markdown)).strip()
