"""Asks the service whether it would serve a version folder: every check, in a process of its own.

The room of training may not import the service's checks, and a graph that crashes or hangs must not end a
conversion. The command is `python -m service check`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from service.contract import spec
from training.errors import TrainingError

Status = Literal["passed", "not needed", "failed", "not reached"]
_ROOT = Path(spec.__file__).parents[2]
# Settings of a server that hold for the check as well; a wrong address or token file is none of its business.
_KEPT = ("SEQSERVE_ADMISSION_SECONDS", "SEQSERVE_ADMISSION_BYTES", "SEQSERVE_THREADS")
_PREFIX = "SEQSERVE_"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check of admission.

    Attributes:
        name: such as golden.
        proves: what is true of a version that has passed it.
        status: passed, not needed, failed, or not reached since one before it has failed.
        measured: what was found, by name.
        text: of a check that failed, the reason in one sentence; empty of any other, as all below.
        expected: what it expected.
        found: what it found instead.
        place: of model.json, or the file.
        during: of the check trial, the check that was running.
    """

    name: str
    proves: str
    status: Status
    measured: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    expected: str = ""
    found: str = ""
    place: str = ""
    during: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """The outcome of all checks of a version.

    Attributes:
        passed: the service admits the version.
        checks: one after the other, in the order in which they are run.
        seconds: time that they took together.
    """

    passed: bool
    checks: tuple[Check, ...]
    seconds: float

    @property
    def failed(self) -> Check | None:
        """The check that failed; None where all are passed."""
        return next((one for one in self.checks if one.status == "failed"), None)

    @property
    def measured(self) -> dict[str, Any]:
        """Everything that was measured, by name, such as largest_difference or microseconds_alone."""
        return {name: value for one in self.checks for name, value in one.measured.items()}


def admitted(
    folder: Path, variant: spec.Variant = "fp32", provider: Literal["cpu", "cuda"] = "cpu"
) -> Admission:
    """Run every check of the service on a version folder.

    Args:
        folder: .../<name>/<version>, in any repository.
        variant: weights to check.
        provider: execution provider to check with.

    Raises:
        TrainingError: there is no such folder or variant, or the service cannot be asked.
    """
    words = [str(folder.absolute()), "--json", "--variant", variant, "--provider", provider]
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "service", "check", *words],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode not in (0, 1):
        raise TrainingError(ran.stderr.strip() or f"python -m service check ended with {ran.returncode}")
    try:
        return _read(json.loads(ran.stdout))
    except ValueError as error:
        raise TrainingError(f"python -m service check: {ran.stderr.strip() or 'no report'}") from error


def _environment() -> dict[str, str]:
    """Return the environment of the check: the package on its path, and no settings without a use."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_PREFIX)}
    kept |= {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))
    return kept | {"PYTHONPATH": os.pathsep.join(path)}


def _read(report: dict[str, Any]) -> Admission:
    return Admission(
        report["passed"], tuple(Check(**one) for one in report["checks"]), float(report["seconds"])
    )
