"""A candidate takes the place of the version that serves only if it is not worse beyond chance.

Both are scored on the same held-out part, here and now, through onnxruntime. The new version's folder is
written under a hidden name and renamed: a server that watches sees all of it or nothing.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from service.contract import spec
from training.errors import TrainingError
from training.evaluate.compare import Difference, common_part, differences
from training.evaluate.scorer import Own
from training.evaluate.version import Version, find_version
from training.export.card import CARD_FILE, FACTS_FILE, CardFacts, read_facts
from training.export.sequences.card import card_files_of
from training.export.version_folder import next_version, write_version
from training.recipes.chance import CONFIDENCE


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate may replace a version, and why.

    Attributes:
        current: the version that it would replace; None: there is none.
        differences: the candidate's losses beside that one's.
        objections: why not; none: it may.
    """

    current: Version | None
    differences: tuple[Difference, ...]
    objections: tuple[str, ...]


class Incomparable(TrainingError):
    """A candidate that cannot be measured beside the version that it would replace."""

    def __init__(self, current: Version, message: str) -> None:
        super().__init__(message)
        self.current = current


def decide(candidate: Version, target: Path, own: Own) -> Decision:
    """Score the candidate beside the newest version in the target repository.

    Raises:
        Incomparable: the two have no held-out part in common.
        TrainingError: the candidate does not compute what it says it does, or a folder is none of a version.
    """
    check_golden(candidate)
    number = next_version(target / candidate.model.name) - 1
    if not number:
        return Decision(None, (), ())
    current = find_version(str(target / candidate.model.name / str(number)), target)
    if candidate.folder.resolve() == current.folder.resolve():
        raise TrainingError(f"{candidate.title} is the newest version in {target} already")
    try:
        found = differences(current, candidate, common_part(current, candidate, own))
    except TrainingError as error:
        raise Incomparable(current, str(error)) from error
    objections = [str(one) for one in found if one.is_worse]
    if missing := sorted(set(current.model.variants) - set(candidate.model.variants)):
        objections.append(f"variants: expected those of {current.title}, found no {', '.join(missing)}")
    return Decision(current, found, tuple(objections))


def check_golden(version: Version) -> None:
    """The graph gives the golden outputs, within the tolerance that admission has.

    Raises:
        TrainingError: it does not.
    """
    for variant, file in version.model.variants.items():
        for index, golden in enumerate(version.model.golden):
            inputs = (
                np.array(golden.tokens, np.int64)
                if golden.tokens is not None
                else np.array(golden.features, np.float32)
            )
            (outputs,) = version.served([inputs], variant)
            found = outputs if version.model.network.is_pooled else outputs[golden.steps]
            error = float(np.abs(found - np.array(golden.outputs)).max())
            if not error <= file.tolerance:
                raise TrainingError(
                    f"{version.title}: {variant}, golden[{index}]: "
                    f"expected outputs within {file.tolerance:g}, found {error:.2e}"
                )


def promote(candidate: Version, decision: Decision, target: Path, reason: str) -> Path:
    """Write the candidate as the next version of its model.

    Args:
        candidate: to be written.
        decision: how it compares; it goes into the model card.
        target: repository.
        reason: why it is promoted against objections; "" where there are none.
    Returns:
        The new folder.
    Raises:
        WriteError: it cannot be written. Nothing is left behind.
    """
    files = {name: (candidate.folder / name).read_bytes() for name in candidate.model.files}
    facts = replace(facts_of(candidate.folder), promotion=_record(decision, reason))

    def describe(number: int) -> tuple[spec.ModelSpec, dict[str, bytes]]:
        model = candidate.model.model_copy(update={"version": number})
        return model, {**files, **card_files_of(model, facts)}

    return write_version(target / candidate.model.name, describe)


def facts_of(folder: Path) -> CardFacts:
    """The facts of a version's model card.

    Raises:
        TrainingError: it has none.
    """
    paths = (folder / name for name in (FACTS_FILE, CARD_FILE))
    return read_facts({path.name: path.read_bytes() for path in paths if path.is_file()})


def _record(decision: Decision, reason: str) -> str:
    if decision.current is None:
        return "The first version in its repository: compared with none."
    lines = [
        (
            f"With {decision.current.title}, on the same held-out part, "
            f"less being better, {CONFIDENCE:.0%} intervals of the difference:"
        ),
        "",
    ]
    lines += [f"- {one}" for one in decision.differences]
    if decision.objections:
        lines += [
            "",
            f"Promoted against these objections: {'; '.join(decision.objections)}. Reason given: {reason}",
        ]
    return "\n".join(lines)
