"""The command `check`: runs every check of the service on a version folder.

Where one fails, it says what to do.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from service.contract import spec
from training.convert.admission import Admission, Check, admitted
from training.convert.advice import advice_on
from training.convert.against import Compared, compared_with
from training.convert.command import number_of, pair_of
from training.convert.command_options import (
    Checkpoint,
    DataInput,
    Encoder,
    Fixed,
    LengthsInput,
    OutputName,
    Overlap,
    State,
    TimeFirst,
    Width,
)
from training.convert.options import Choices
from training.errors import TrainingError
from training.recipes.run import REPOSITORY, say

# Checks that leave a graph that can be run.
_COMPARABLE = ("golden", "invariance", "warm-up", "generation")
_SHOWN = {
    "largest_difference": "largest difference {:.2g}",
    "tolerance": "{:g} allowed",
    "microseconds_alone": "{:.1f} us a time step of one sequence alone",
    "microseconds_widest": "{:.2f} us each in the widest tick",
    "rows": "{} rows",
    "faster_rows": "faster for up to {} rows",
}


def check_version(
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="a version's folder, or name@version in --repository",
            show_default=False,
        ),
    ],
    repository: Annotated[
        Path, typer.Option(help="folder of models in which name@version is looked up")
    ] = REPOSITORY,
    variant: Annotated[Literal["fp32", "int8"], typer.Option(help="weights to check")] = "fp32",
    provider: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="execution provider to check with")
    ] = "cpu",
    against: Annotated[
        str,
        typer.Option(
            metavar="ORIGINAL",
            help="compare with this network, too: an .onnx or .keras file, or package.module:function",
        ),
    ] = "",
    checkpoint: Checkpoint = None,
    state: State = None,
    data_input: DataInput = None,
    output_name: OutputName = None,
    lengths_input: LengthsInput = None,
    time_first: TimeFirst = None,
    width: Width = None,
    overlap: Overlap = 0,
    fixed: Fixed = None,
    encoder: Encoder = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of lines")] = False,
) -> None:
    """Check a version, and print the outcome of each check.

    Exit status 0: a server would serve it; 1: it would refuse it, or it is not the original; 2: there is no
    such version.
    """
    folder = folder_of(version, repository)
    choices = Choices(
        state=tuple(map(pair_of, state or ())),
        data=data_input,
        output=output_name,
        overlap=overlap,
        width=width,
        fixed=dict(map(number_of, fixed or ())),
        encoder=encoder,
        lengths=lengths_input,
        time_first=time_first,
    )
    admission = admitted(folder, variant, provider)
    compared = None
    if against and (admission.failed is None or admission.failed.name in _COMPARABLE):
        compared = compared_with(folder, against, choices, checkpoint)
    if as_json:
        print(json.dumps(as_object(folder, admission, compared), indent=1))
    else:
        for line in [*lines_of(folder, admission), *(_comparison_lines(compared) if compared else ())]:
            say(line)
    if not admission.passed or (compared is not None and compared.refused is not None):
        raise typer.Exit(1)


def _comparison_lines(compared: Compared) -> list[str]:
    if compared.refused is not None:
        return [f"not the same as {compared.original}: {compared.refused}"]
    lines = [
        f"{one.way:<45} {one.sequences:>3} sequences {one.steps:>6} steps   largest difference "
        f"{one.difference:.1e}"
        for one in compared.comparisons
    ]
    return [*lines, f"the same as {compared.original}"]


def folder_of(where: str, repository: Path) -> Path:
    """Return a version's folder, which need not be right, by its path or by name@version.

    Raises:
        TrainingError: there is no such folder.
    """
    name, at, number = where.rpartition("@")
    is_named = at and number.isdecimal() and not Path(where).exists()
    folder = repository / name / number if is_named else Path(where)
    if not folder.is_dir():
        raise TrainingError(
            f"{where}: expected a version's folder, or name@version in {repository}, "
            f"found {_versions(where, repository)}"
        )
    if not (folder / spec.SPEC_FILE).exists():
        raise TrainingError(f"{where}: expected a version's folder with {spec.SPEC_FILE}, found none in it")
    return folder.absolute()


def _versions(where: str, repository: Path) -> str:
    """Return the versions of the model that a user has named, in words, or none."""
    name = where.partition("@")[0]
    versions = sorted(
        int(one.parent.name)
        for one in repository.glob(f"*/*/{spec.SPEC_FILE}")
        if one.parts[-3] == name and one.parent.name.isdecimal()
    )
    return ", ".join(f"{name}@{one}" for one in versions[-5:]) or "none"


def as_object(folder: Path, admission: Admission, compared: Compared | None = None) -> dict[str, Any]:
    """Return the outcome as JSON: the report of the service, with what to do where a check failed."""
    checks = [{name: value for name, value in asdict(one).items() if value} for one in admission.checks]
    found = {
        "folder": str(folder),
        "passed": admission.passed,
        "seconds": admission.seconds,
        "checks": checks,
    }
    if compared is not None:
        found["against"] = {
            "original": compared.original,
            "same": compared.refused is None,
            "comparisons": [asdict(one) for one in compared.comparisons],
            "reason": "" if compared.refused is None else compared.refused.reason,
        }
    failed = admission.failed
    return found if failed is None else found | {"advice": advice_on(failed)}


def lines_of(folder: Path, admission: Admission) -> list[str]:
    """Return the outcome as lines for people."""
    lines = [f"{folder.parent.name}@{folder.name}"]
    for check in admission.checks:
        lines.append(f"{check.status:<12} {check.name:<14} {_plain(check.proves)}")
        if measured := _measured(check):
            lines.append(f"{'':<12} {'':<14} {measured}")
    failed = admission.failed
    if failed is None:
        return [*lines, f"admitted: every check passed in {admission.seconds:.1f} s"]
    running = f" (while the check {failed.during} was running)" if failed.during else ""
    return [*lines, f"refused: {failed.text}{running}", f"what to do: {advice_on(failed)}"]


def _plain(text: str) -> str:
    """Return a text of a Markdown table as a terminal should have it."""
    return text.replace("`", "")


def _measured(check: Check) -> str:
    shown = [_SHOWN[name].format(value) for name, value in check.measured.items() if name in _SHOWN]
    if "batch_invariant" in check.measured:
        same = "the same bits" if check.measured["batch_invariant"] else "not the same bits"
        shown.append(f"{same} alone and in any batch")
    if "memory_bytes" in check.measured:
        shown.append(f"{check.measured['memory_bytes'] / 1e6:.0f} MB of memory")
    return ", ".join(shown)
