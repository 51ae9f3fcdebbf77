"""Turns probabilities of labels into bars: those of a few labels in their order, of many the highest."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

MAX_BARS = 12
MAX_LABEL_CHARACTERS = 60


class Bar(NamedTuple):
    """A bar: its label, and its length as a share of the whole, in 0..1."""

    label: str
    share: float

    @property
    def percent(self) -> str:
        """The share as people read it."""
        return f"{100 * self.share:.1f} %"


def bars_of(probabilities: Iterable[tuple[str, float]], *, exclusive: bool = True) -> list[Bar]:
    """Return a bar for each label in the order given; of more than MAX_BARS the highest and one more.

    The last bar of many labels is for the rest. Bars of a few labels keep their places, so that one sees them
    grow and shrink as the input changes.

    Args:
        probabilities: Labels with their probabilities.
        exclusive: Whether exactly one label holds at a time, so that the sum of the rest means something.
    """
    given = list(probabilities)
    if len(given) <= MAX_BARS:
        return [Bar(short_label(label), share) for label, share in given]
    ordered = sorted(given, key=lambda pair: -pair[1])
    shown, rest = ordered[:MAX_BARS], ordered[MAX_BARS:]
    total = sum(share for _, share in rest) if exclusive else max(share for _, share in rest)
    last = Bar(f"{len(rest)} more labels, {'together' if exclusive else 'at most'}", total)
    return [*(Bar(short_label(label), share) for label, share in shown), last]


def short_label(label: str) -> str:
    """Return a label of bounded length, for pages."""
    return label if len(label) <= MAX_LABEL_CHARACTERS else f"{label[:MAX_LABEL_CHARACTERS]}…"


def labelled(labels: Sequence[str], row: Sequence[float]) -> list[tuple[str, float]]:
    """Pair labels with the probabilities of a row; a model without labels gets the outputs' numbers."""
    named = labels if len(labels) == len(row) else [str(number) for number in range(len(row))]
    return list(zip(named, row, strict=True))
