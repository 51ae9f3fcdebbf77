"""Scores versions of the recipe series: wrong classes and log loss, or errors of numbers, over windows."""

import hashlib
import json
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from service.contract.sequences import SequencesSpec
from training.data.feature_rows import RowsChoice
from training.data.sources import Source
from training.data.windows import Cut, Kind, Steps, Windows
from training.errors import TrainingError
from training.evaluate.scorer import Choices, Floats, Loss
from training.evaluate.version import Version
from training.export.pictures import LabelledParts
from training.recipes import series, series_results
from training.recipes.class_measures import log_losses
from training.recipes.sequence_delivery import labelled


@dataclass(frozen=True, slots=True)
class HeldWindows:
    """The windows of a file, of which one part is held out."""

    windows: Windows

    @property
    def sha256(self) -> str:
        """Return the hash of the held-out windows and of what their columns and classes mean."""
        windows = self.windows
        digest = hashlib.sha256(json.dumps([windows.columns, windows.targets, windows.labels]).encode())
        for one in windows.held_out:
            digest.update(f"{one.sequence} {one.values.shape} {one.target.shape}".encode())
            digest.update(one.values.tobytes() + one.target.tobytes())
        return digest.hexdigest()

    def __str__(self) -> str:
        held_out = self.windows.held_out
        return f"{len({one.sequence for one in held_out}):,} sequences, {len(held_out):,} windows"


class WindowScorer:
    """Scores networks that give classes or numbers for rows of features."""

    option = "--csv"
    shipped = None

    def held_out(self, version: Version, source: Source, choices: Choices) -> HeldWindows:
        """Return the windows, dealt by the version's seed."""
        rows = RowsChoice(
            source,
            choices["sequence"],
            tuple(choices["targets"].split(",")),
            tuple(choices["columns"].split(",")) if choices["columns"] else (),
        )
        cut = Cut(int(choices["window"]), int(choices["stride"]))
        kind, steps = cast(Kind, choices["kind"]), cast(Steps, choices["steps"])
        choice = series.SeriesChoice(rows, cut, kind, steps)
        return HeldWindows(series.read_windows(choice, version.model.provenance.seed or 0))

    def losses(self, version: Version, part: HeldWindows, variant: spec.Variant) -> list[Loss]:
        """Return whether each class is wrong and its log loss, or the squared errors of the numbers."""
        windows = part.windows
        answers = series_results.counted(windows, _outputs(version, windows, variant))
        block = series_results.answers_a_sequence(windows.held_out, len(answers))
        if not windows.labels:
            missed = answers * _scale(version) + _mean(version) - _numbers(windows)
            errors = (missed / windows.target_scales()[1]) ** 2
            return [Loss("squared error / variance", errors.mean(axis=1), block, ".4g")]
        given, known = series_results.softmax(answers), series_results.truth(windows.held_out)
        return [
            Loss("wrong classes, %", 100.0 * (given.argmax(1) != known), block, ".2f"),
            Loss("log loss, nats", log_losses(given, known), block, ".4f"),
        ]

    def evidence(self, version: Version, part: HeldWindows) -> LabelledParts | None:
        """Return which classes are taken for which; None of numbers."""
        windows = part.windows
        if not windows.labels:
            return None
        given = series_results.probabilities(windows, _outputs(version, windows, "fp32"))
        known = series_results.truth(windows.held_out)
        return labelled(windows.labels, given, known, series_results.unit(windows))


def _outputs(version: Version, windows: Windows, variant: spec.Variant) -> list[Floats]:
    """Return the version's outputs for each held-out window, scaled as its model.json says.

    Raises:
        TrainingError: the version reads other columns than the windows have.
    """
    columns = _section(version).columns or []
    if (names := tuple(one.name for one in columns)) != windows.columns:
        raise TrainingError(
            f"{version.title}: expected the columns {', '.join(windows.columns)}, found {', '.join(names)}"
        )
    mean, scale = np.array([one.mean for one in columns]), np.array([one.scale for one in columns])
    inputs = [((one.values - mean) / scale).astype(np.float32) for one in windows.held_out]
    return [one.astype(np.float64) for one in version.served(inputs, variant)]


def _section(version: Version) -> SequencesSpec:
    assert version.model.sequences is not None
    return version.model.sequences


def _scale(version: Version) -> Floats:
    return np.array([one.scale for one in _section(version).output.columns or ()])


def _mean(version: Version) -> Floats:
    return np.array([one.mean for one in _section(version).output.columns or ()])


def _numbers(windows: Windows) -> NDArray[np.float64]:
    """Return the true numbers, float64 (N, targets)."""
    return np.concatenate([np.atleast_2d(one.target) for one in windows.held_out])
