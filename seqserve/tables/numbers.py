"""Reads cells as numbers."""

import math
import re

from seqserve.tables.errors import TableError

MISSING = frozenset({"", "-", "na", "n/a", "#n/a", "nan", "null", "none"})
"""What stands in a cell without a value, in lower case."""

LARGEST = 1e100
_LONGEST_SHOWN = 60
_OTHER_FORM = re.compile(
    r"[^\W\d_]{0,3}[-+\u2212(\s]*[^\w\s]?[\s]*\d[\d.,'\u2019\s]*[)%\u2030-]?\s*[^\w\s]?[^\W\d_]{0,3}"
)
"""Numbers as people write them, with signs for thousands, decimal commas, currencies and shares."""


def parse_number(place: str, cell: str) -> float:
    """Parse a cell as a finite number with a decimal point.

    Args:
        place: File, line and column, for messages.
        cell: Text of the cell.

    Raises:
        TableError: It is none.
    """
    if (value := finite(cell)) is not None:
        return value
    if cell.casefold() in MISSING or not _OTHER_FORM.fullmatch(cell) or _is_large(cell):
        wanted = f"a number between -{LARGEST:g} and {LARGEST:g}" if _is_large(cell) else "a finite number"
    else:
        wanted = "a number with a decimal point and no other signs"
    raise TableError(f"{place}: expected {wanted}, found {shown(cell)}")


def finite(cell: str) -> float | None:
    """Return a cell's number; None if it is none, not finite or too large to calculate with."""
    try:
        # Python takes 1_000 for a number.
        value = math.nan if "_" in cell else float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST else None


def shown(cell: str) -> str:
    """Format a cell for a message, on one line and not too long."""
    return repr(cell if len(cell) <= _LONGEST_SHOWN else cell[:_LONGEST_SHOWN] + "...")


def _is_large(cell: str) -> bool:
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False
