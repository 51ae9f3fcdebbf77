"""Examines one version folder: runs every check of admission in a child process, and reports on each.

It changes nothing: no version is loaded, and nothing is written. The checks, and the process that runs them,
are those of a server that loads the version.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service.contract import spec
from service.contract.sentences import parts_of
from service.errors import ModelRefused
from service.models.checklist import CHECKS, NAMES, Check, Measured, Passed
from service.models.refusals import printable
from service.models.trial import Trial
from service.settings import Settings

Status = Literal["passed", "not needed", "failed", "not reached"]
_PASSED: tuple[Status, ...] = ("passed", "not needed")


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why a version is refused.

    Attributes:
        text: the reason in one line.
        expected: what the check expected; empty: only the text says so.
        found: what it found instead; empty: only the text says so.
        place: of model.json, or the file, such as golden[0].steps; empty where there is none.
        during: of the check `trial`, the check that was running; empty for any other.
    """

    text: str
    expected: str = ""
    found: str = ""
    place: str = ""
    during: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one check; `failure` is of a check that failed."""

    check: Check
    status: Status
    measured: Measured = field(default_factory=dict)
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of every check of a version.

    Attributes:
        outcomes: one for each check, in the order in which they are run.
        seconds: time that they took together.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def failed(self) -> Outcome | None:
        """The check that failed; None: the version is admitted."""
        return next((one for one in self.outcomes if one.status == "failed"), None)

    def measured(self, check: str) -> Measured:
        """Return what was measured in a check; nothing where it was not passed."""
        return self.outcomes[NAMES.index(check)].measured


def examine(folder: Path, settings: Settings) -> Report:
    """Run every check on a version folder.

    Args:
        folder: .../<name>/<version>.
        settings: provider, variant, threads and sizes that a server would have, and the limits of the trial.
    """
    trial, started = Trial(settings, settings.provider), time.monotonic()
    told: dict[str, Passed] = {}

    def tell(passed: Passed) -> None:
        before = told[passed.check].measured if passed.check in told else {}
        told[passed.check] = passed._replace(measured={**before, **passed.measured})

    failed: tuple[str, Failure] | None = None
    try:
        trial.examine(folder, tell)
    except spec.SpecError as error:
        parts = {name: printable(text) for name, text in parts_of(str(error)).items()}
        failed = "spec", Failure(printable(str(error)), **parts)
    except ModelRefused as error:
        sides = printable(error.expected), printable(error.found)
        failed = error.check, Failure(printable(str(error)), *sides, during=_during(error.check, told))
    finally:
        trial.close()
    return Report(_outcomes(told, failed), time.monotonic() - started)


def _during(check: str, told: dict[str, Passed]) -> str:
    """Return the check that was running when the trial ended."""
    if check != "trial":
        return ""
    return next((name for name in NAMES if name not in told), "")


def _outcomes(told: dict[str, Passed], failed: tuple[str, Failure] | None) -> tuple[Outcome, ...]:
    """Return what became of each check: those before the one that failed have passed."""
    name, failure = failed or ("", None)
    ends = NAMES.index(name) if name in NAMES else len(NAMES)
    outcomes = []
    for index, check in enumerate(CHECKS):
        if check.name == name:
            outcomes.append(Outcome(check, "failed", failure=failure))
        elif check.name in told:
            passed = told[check.name]
            status: Status = "passed" if passed.is_needed else "not needed"
            outcomes.append(Outcome(check, status, passed.measured))
        else:
            is_passed = failed is None or (index < ends and name != "trial")
            outcomes.append(Outcome(check, "passed" if is_passed else "not reached"))
    return tuple(outcomes)
