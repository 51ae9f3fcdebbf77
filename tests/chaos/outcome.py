"""What came of a fault."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the table.

    Attributes:
        fault: what was done.
        tried: how often.
        load: what was under way meanwhile.
        lost: failed, wrong or missing answers; each as a line.
        recovery_s: the longest that anybody had to wait because of it, seconds.
        facts: further measurements, by name.
    """

    fault: str
    tried: int
    load: str
    lost: tuple[str, ...]
    recovery_s: float
    facts: dict[str, float]
