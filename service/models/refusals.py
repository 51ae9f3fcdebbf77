"""Describes why a version is refused, in one line of bounded length.

Texts hold names and words that stand in the version's files. Whatever is not printable in them is escaped, so
that nothing in a folder forges a line of the log.
"""

from typing import NamedTuple

from service.contract import spec
from service.errors import ModelRefused
from service.observability.escaping import escaped

_MAX_CHARACTERS = 2000


class Refusal(NamedTuple):
    """The check that failed, the reason for people, and whether the error is one of a check."""

    check: str
    text: str
    is_foreseen: bool


def refusal_of(error: Exception) -> Refusal:
    """Describe an error of loading."""
    if isinstance(error, spec.SpecError):
        return Refusal("spec", printable(str(error)), True)
    if isinstance(error, ModelRefused):
        return Refusal(error.check, printable(str(error)), True)
    text = f"check 'unexpected' failed: {type(error).__name__}: {error}"
    return Refusal("unexpected", printable(text), False)


def printable(text: str) -> str:
    """Return a text on one line and of bounded length: what is not printable is escaped as in Python."""
    if len(text) > _MAX_CHARACTERS:
        text = text[:_MAX_CHARACTERS] + "..."
    return escaped(text)
