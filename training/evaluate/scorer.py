"""Declares what the versions of a recipe need to be scored.

A new recipe adds a module with one `Scorer`, and its name to the table of training.evaluate.scoring.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.data.sources import Source
from training.evaluate.version import Version
from training.export.pictures import Fans, Labels

Floats = NDArray[np.float64]
# What a run was told about its data, by name (`spec.Provenance.choices`).
Choices = Mapping[str, str]


class Own(NamedTuple):
    """Files of the user's that a version was made from: their names alone stand in its provenance.

    Attributes:
        text: given by --text.
        csv: given by --csv.
        more: given by --more.
    """

    text: Path | None = None
    csv: Path | None = None
    more: Path | None = None


class HeldOut(Protocol):
    """What the training of a version never saw. Its text says how much it is, for people."""

    @property
    def sha256(self) -> str:
        """Return the hash of its contents: versions are compared on one held-out part alone."""
        ...


class Loss(NamedTuple):
    """One measure, unit by unit, less being better.

    Attributes:
        title: for people, with the unit.
        values: float64 (N,), one a character, text or day.
        block: so many neighbours are drawn together when chance is judged.
        form: how numbers are written.
    """

    title: str
    values: Floats
    block: int
    form: str


class Scorer(Protocol):
    """The part of a recipe that finds its held-out data again and measures a version on them."""

    @property
    def shipped(self) -> Source | None:
        """Return the data that ship with the repository; None: the recipe has none."""
        ...

    @property
    def option(self) -> str:
        """Return the option that names a file of the user's, --text or --csv."""
        ...

    def held_out(self, version: Version, source: Source, choices: Choices) -> Any:
        """Return the held-out part of the source, cut as the recipe cuts it.

        Raises:
            TrainingError: the data do not fit the choices.
        """
        ...

    def losses(self, version: Version, part: Any, variant: spec.Variant) -> list[Loss]:
        """Return the measures that decide between versions of the task.

        Raises:
            TrainingError: the version cannot read the part.
        """
        ...

    def evidence(self, version: Version, part: Any) -> Labels | Fans | None:
        """Return what the model card shows of a version on its held-out part."""
        ...
