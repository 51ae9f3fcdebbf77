"""Refusal of unknown names of tensors and parameters, with the known names and the nearest of them."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from service.errors import InvalidArgument, shown

# Longer names are not compared: the comparison takes more than linear time.
_MAX_COMPARED: Final = 64


def unknown_name(field: str, noun: str, found: str, known: Sequence[str]) -> InvalidArgument:
    """Return the error for a name that is not among the known ones.

    Args:
        field: path in the request.
        noun: what the names stand for, in the plural.
        found: name that was sent.
        known: names that may be sent.
    """
    expected = f"{noun} among {', '.join(known)}" if known else f"no {noun}"
    near = get_close_matches(found, known, 1) if len(found) <= _MAX_COMPARED else []
    hint = f"; did you mean {near[0]}?" if near else ""
    return InvalidArgument(field, f"expected {expected}, found {shown(found)}{hint}")
