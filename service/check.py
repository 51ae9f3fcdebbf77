"""The command that checks one version folder as a server would before serving it.

    python -m service check exported/charlm/1

It prints what became of each check and ends with status 0 for a version that is admitted, 1 for one that is
refused, and 2 for a wrong argument.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from service.contract.spec import SPEC_FILE
from service.models.checklist import Measured
from service.models.examining import Outcome, Report, examine
from service.settings import Settings, SettingsRefused, read_settings

ADMITTED, REFUSED, USAGE = 0, 1, 2
INTERRUPTED = 130
HELP = """\
usage: python -m service check FOLDER [--json] [settings]

Runs every check of admission on one version folder, as a server does before it serves the version, and
prints what became of each. It loads nothing into a server and changes nothing.

  FOLDER      folder of a version, <repository>/<name>/<version>
  --json      print one JSON object instead of lines
  --help      print this text
  [settings]  flags and environment variables of the server: --variant int8, --provider cuda, --threads,
              --admission-seconds, --admission-bytes; python -m service --help lists them

exit status: 0 if the version is admitted, 1 if it is refused, 2 for a wrong argument
"""


class UsageError(Exception):
    """The command was called wrongly; the text says with what, and what was expected."""


def main(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit status.

    Args:
        arguments: those behind `check`.
    """
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(HELP)
        return ADMITTED
    try:
        folder, flags = _folder([one for one in arguments if one != "--json"])
        settings = read_settings(flags)
        report = examine(folder, settings)
        _expect_variant(settings, report)
    except (UsageError, SettingsRefused) as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(
        f"{json.dumps(as_json(folder, settings, report), indent=1)}\n"
        if "--json" in arguments
        else f"{as_text(folder, settings, report)}\n"
    )
    return ADMITTED if report.failed is None else REFUSED


def _folder(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the folder among the arguments, which comes first, and the flags behind it.

    Raises:
        UsageError: there is no folder, or none of a version.
    """
    if not arguments or arguments[0].startswith("-"):
        raise UsageError("FOLDER: expected the folder of a version before any setting, found none")
    folder = Path(arguments[0]).absolute()
    if not folder.is_dir():
        raise UsageError(f"FOLDER: expected the folder of a version, found no folder {arguments[0]}")
    if not (folder / SPEC_FILE).exists():
        versions = sorted(one.parent.name for one in folder.glob(f"*/{SPEC_FILE}"))
        inside = f", whose versions are {', '.join(versions[:8])}" if versions else ""
        raise UsageError(
            f"FOLDER: expected the folder of a version with {SPEC_FILE}, found {arguments[0]}{inside}"
        )
    return folder, list(arguments[1:])


def _expect_variant(settings: Settings, report: Report) -> None:
    """Raise UsageError where the version does not have the variant: a server would take fp32 instead."""
    found = report.measured("spec").get("variant", settings.variant)
    if found != settings.variant:
        raise UsageError(f"--variant: expected {found}, all that the version has, found {settings.variant}")


def as_json(folder: Path, settings: Settings, report: Report) -> dict[str, Any]:
    """Return the report as JSON: docs/contract.md describes the fields."""
    return {
        "folder": str(folder),
        "passed": report.failed is None,
        "variant": settings.variant,
        "provider": settings.provider,
        "seconds": round(report.seconds, 3),
        "checks": [_outcome_as_json(one) for one in report.outcomes],
    }


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": outcome.check.name,
        "proves": outcome.check.proves,
        "status": outcome.status,
        "measured": dict(outcome.measured),
    }
    if (failure := outcome.failure) is not None:
        parts = {name: getattr(failure, name) for name in ("text", "expected", "found", "place", "during")}
        found |= {name: text for name, text in parts.items() if text}
    return found


def as_text(folder: Path, settings: Settings, report: Report) -> str:
    """Return the report as lines: what is checked, each check, and the outcome."""
    title = f"{folder.parent.name}@{folder.name}, {settings.variant} on {settings.provider}"
    lines = [title, *(_line(one) for one in report.outcomes)]
    failed = report.failed
    if failed is None:
        lines.append(f"admitted: every check passed in {report.seconds:.1f} s")
    else:
        assert failed.failure is not None, "a check that failed has a reason"
        lines.append(f"refused: {failed.failure.text}")
        if failed.failure.during:
            lines.append(f"the check {failed.failure.during} was running")
    return "\n".join(lines)


def _line(outcome: Outcome) -> str:
    return f"{outcome.status:<12} {outcome.check.name:<14} {_words(outcome.measured)}".rstrip()


def _words(measured: Measured) -> str:
    """Return measurements in words, with commas."""
    return ", ".join(_WORDS[name](value) for name, value in measured.items() if name in _WORDS)


# The words of each measurement; what is not listed is shown in JSON alone.
_WORDS: dict[str, Callable[[Any], str]] = {
    "examples": "{} examples".format,
    "largest_difference": "largest difference {:.3g}".format,
    "tolerance": "{:g} allowed".format,
    "microseconds_alone": "{:.1f} us a time step of one sequence alone".format,
    "microseconds_widest": "{:.2f} us each in the widest tick".format,
    "rows": "{} rows".format,
    "same_bits": lambda value: "the same bits as single steps" if value else "not the same bits",
    "faster_rows": "faster for up to {} rows".format,
    "batch_invariant": lambda value: "the same bits in every batch" if value else "not the same bits",
    "memory_bytes": lambda value: f"{value / 1e6:.0f} MB of memory",
}
