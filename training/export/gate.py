"""Decides whether int8 weights lose too little on held-out data to be left out."""

from dataclasses import dataclass
from typing import NamedTuple

# Held-out numbers of int8 weights are named like those of fp32, with this in place of "held_out".
INT8_KEY = "held_out_int8"


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit, and the value that was found.

    Attributes:
        what: was measured, with its unit.
        limit: the worst value that passes.
        found: on the held-out part; NaN passes no gate.
        is_least: the limit is the least value that passes, not the most.
    """

    what: str
    limit: float
    found: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Return whether int8 weights may be exported."""
        return self.found >= self.limit if self.is_least else self.found <= self.limit

    def __str__(self) -> str:
        return (
            f"{self.what}: expected at {'least' if self.is_least else 'most'} "
            f"{self.limit:g}, found {self.found:.4g}"
        )


class Int8(NamedTuple):
    """Int8 weights on offer: the serialized graph, and the gate that it has to pass."""

    graph: bytes
    gate: Gate
