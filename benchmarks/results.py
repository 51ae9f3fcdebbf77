"""What a run found, as plain data: for the terminal, Markdown, JSON and plots alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.rounds import Round, Verdict


@dataclass(frozen=True, slots=True)
class Measured:
    """A contestant over all rounds.

    Attributes:
        values: one a round, in the row's unit.
        by_cpu: median of the values by CPU time, where they were taken.
        notes: medians of the notes.
    """

    values: tuple[float, ...]
    by_cpu: float | None
    notes: Mapping[str, float]

    @property
    def median(self) -> float:
        """Over the rounds."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class RowResult:
    """A row after its rounds.

    Attributes:
        name, title, unit, load: from the row and its contest.
        contestants: by name.
        verdicts: on its claims.
        facts: found on the way.
        seconds: that it took.
        trouble: why it could not be measured; empty if it was.
        has_failed: the trouble is an error, and not something that is missing here.
    """

    name: str
    title: str
    unit: str
    load: str = ""
    contestants: Mapping[str, Measured] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    trouble: str = ""
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    Attributes:
        machine: by name.
        settings: of the run, by name.
        rows: in order.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    rows: Sequence[RowResult]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "rows": [_row(row) for row in self.rows],
        }


def summarise(rounds: Sequence[Round]) -> dict[str, Measured]:
    """Medians over the rounds."""
    made: dict[str, Measured] = {}
    for name in rounds[0]:
        samples = [samples[name] for samples in rounds]
        by_cpu = [sample.by_cpu for sample in samples if sample.by_cpu is not None]
        notes = {note: median(sample.notes[note] for sample in samples) for note in samples[0].notes}
        made[name] = Measured(
            tuple(sample.value for sample in samples), median(by_cpu) if by_cpu else None, notes
        )
    return made


def _row(row: RowResult) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "unit": row.unit,
        "load": row.load,
        "seconds": round(row.seconds, 1),
        "trouble": row.trouble,
        "facts": dict(row.facts),
        "claims": [_claim(verdict) for verdict in row.verdicts],
        "contestants": {
            name: {
                "median": one.median,
                "values": list(one.values),
                "by_cpu": one.by_cpu,
                "notes": dict(one.notes),
            }
            for name, one in row.contestants.items()
        },
    }


def _claim(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "what": claim.what,
        "unit": claim.unit,
        "target": claim.target,
        "is_at_most": claim.is_at_most,
        "median": verdict.median,
        "least": min(verdict.values),
        "most": max(verdict.values),
        "values": list(verdict.values),
        "by_cpu": verdict.by_cpu,
        "doubt": verdict.doubt,
        "is_met": verdict.is_met,
    }
