"""Rounds: contestants take turns, ratios are taken within each round, medians over the rounds. Knows neither
models nor servers.

A machine that others use is slower at some times than at others. Contestants that take turns meet the same
times, and a ratio within one round has seen little of the drift; a ratio of two medians would have seen all
of it.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

# Notes. How much of its core a contestant in this process got: all of it on a machine that is left alone.
# With less it was disturbed.
CORE_SHARE = "share of the core %"
LEAST_SHARE = 90.0
# How much of its core the load generator used: with more, it was the limit, and not the server.
CLIENT_SHARE = "client CPU %"
MOST_CLIENT_SHARE = 95.0

Contestants = Mapping[str, Callable[[], "Sample"]]
Round = Mapping[str, "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One contestant in one round.

    Attributes:
        value: what the row measures, in the row's unit.
        by_cpu: the same by CPU time instead of wall time: this process', or through gRPC the server's. It
            does not suffer when others use the core, but neither does it tell of a core left idle.
        notes: further numbers, by name and unit.
    """

    value: float
    by_cpu: float | None = None
    notes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the table of promises.

    Attributes:
        what: is claimed.
        of: the number, from one round's samples.
        target: what it should be at least, or at most; None: only shown.
        is_at_most: the target is an upper bound.
        unit: of the number; "x" for ratios.
        sides: the two contestants of a ratio, ours first.
    """

    what: str
    of: Callable[[Round], float]
    target: float | None = None
    is_at_most: bool = False
    unit: str = "x"
    sides: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim after all rounds.

    Attributes:
        claim: what was claimed.
        values: one a round.
        by_cpu: the same ratio by CPU time, median; None where it was not measured.
        doubt: why wall time does not tell of the contestants alone; empty if it does.
    """

    claim: Claim
    values: tuple[float, ...]
    by_cpu: float | None
    doubt: str

    @property
    def median(self) -> float:
        """Over the rounds."""
        return median(self.values)

    @property
    def is_by_cpu(self) -> bool:
        """Whether CPU time decides."""
        return bool(self.doubt) and self.by_cpu is not None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is kept; None where there is none."""
        target = self.claim.target
        if target is None:
            return None
        value = self.by_cpu if self.doubt and self.by_cpu is not None else self.median
        return value <= target if self.claim.is_at_most else value >= target


def ratio(what: str, ours: str, theirs: str, target: float | None = None) -> Claim:
    """A claim on ours / theirs, for values of which more is better."""
    return Claim(
        what, lambda samples: samples[ours].value / samples[theirs].value, target, sides=(ours, theirs)
    )


def inverse_ratio(what: str, ours: str, theirs: str, target: float | None = None) -> Claim:
    """A claim on theirs / ours, for values of which less is better, such as latencies."""
    return Claim(
        what, lambda samples: samples[theirs].value / samples[ours].value, target, sides=(ours, theirs)
    )


def number(
    what: str, contestant: str, target: float | None = None, *, unit: str, is_at_most: bool = False
) -> Claim:
    """A claim on a contestant's value itself."""
    return Claim(what, lambda samples: samples[contestant].value, target, is_at_most, unit)


def judge(claim: Claim, rounds: Sequence[Round]) -> Verdict:
    """A claim's numbers over all rounds."""
    return Verdict(
        claim, tuple(claim.of(samples) for samples in rounds), _by_cpu(claim, rounds), _doubt(claim, rounds)
    )


def _doubt(claim: Claim, rounds: Sequence[Round]) -> str:
    def notes(name: str, default: float) -> list[float]:
        return [
            median(samples[side].notes.get(name, default) for samples in rounds) for side in claim.sides or ()
        ]

    if any(share < LEAST_SHARE for share in notes(CORE_SHARE, 100.0)):
        return "disturbed"
    return (
        "load generator at its limit"
        if any(share > MOST_CLIENT_SHARE for share in notes(CLIENT_SHARE, 0.0))
        else ""
    )


def _by_cpu(claim: Claim, rounds: Sequence[Round]) -> float | None:
    if claim.sides is None:
        return None
    pairs = [tuple(samples[side].by_cpu for side in claim.sides) for samples in rounds]
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    return median(ratios) if len(ratios) == len(rounds) else None


def interleave(contestants: Contestants, rounds: int) -> list[Round]:
    """Let every contestant run once a round, each round begun by another one.

    Args:
        contestants: by name, warmed up.
        rounds: how many.
    Returns:
        One a round: samples by contestant.
    """
    names = list(contestants)
    taken: list[Round] = []
    # What is there by now is not looked at again by the garbage collector, which would pause this process and
    # not the servers.
    gc.freeze()
    for index in range(rounds):
        shift = index % len(names)
        samples: dict[str, Sample] = {}
        for name in names[shift:] + names[:shift]:
            gc.collect()  # nobody pays for another's garbage
            try:
                samples[name] = contestants[name]()
            except Exception as error:
                error.add_note(f"contestant {name!r}, round {index + 1}")
                raise
        taken.append({name: samples[name] for name in names})
    gc.unfreeze()
    return taken


def timed(work: Callable[[], float], notes: Mapping[str, float] | None = None) -> Sample:
    """How much work was done a second.

    Args:
        work: does it and says how much it was, in the row's unit.
        notes: to keep with the sample.
    """
    cpu, wall = time.process_time(), time.perf_counter()
    done = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(done / wall, done / cpu if cpu else None, {CORE_SHARE: 100 * cpu / wall, **(notes or {})})
