"""Describes why a version is refused, in one line of bounded length.

Texts hold names and words that stand in the version's files. Whatever is not printable in them is escaped, so
that nothing in a folder forges a line of the log.
"""

from collections.abc import Mapping
from typing import NamedTuple

from service.contract import spec
from service.contract.sentences import parts_of
from service.errors import ModelRefused
from service.observability.escaping import escaped

_MAX_CHARACTERS = 2000
_MAX_DETAIL = 200  # characters: status and its details fit into 8 KiB of metadata


class Refusal(NamedTuple):
    """A failed check.

    Attributes:
        check: its name.
        text: the reason, for people.
        is_foreseen: False for an error that is none of a check.
        details: for programs, the check, what it expected and what it found, and of model.json and the files
            that it names the place, such as golden[0].steps; each as far as it is known.
    """

    check: str
    text: str
    is_foreseen: bool
    details: Mapping[str, str]


def refusal_of(error: Exception) -> Refusal:
    """Describe an error of loading."""
    if isinstance(error, spec.SpecError):
        return Refusal("spec", printable(str(error)), True, _details("spec", parts_of(str(error))))
    if isinstance(error, ModelRefused):
        sides = {"expected": error.expected, "found": error.found}
        return Refusal(error.check, printable(str(error)), True, _details(error.check, sides))
    text = f"check 'unexpected' failed: {type(error).__name__}: {error}"
    return Refusal("unexpected", printable(text), False, {"check": "unexpected"})


def _details(check: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {"check": check} | {name: printable(text, _MAX_DETAIL) for name, text in parts.items()}


def printable(text: str, limit: int = _MAX_CHARACTERS) -> str:
    """Return a text on one line and of bounded length: what is not printable is escaped as in Python."""
    if len(text) > limit:
        text = text[:limit] + "..."
    return escaped(text)
