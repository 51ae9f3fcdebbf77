"""Finds and reads the folder of a version that is scored, compared or promoted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from training.errors import TrainingError
from training.export.chunks import ChunkCell
from training.export.sequences.served import WholeGraph


@dataclass(frozen=True, slots=True)
class Version:
    """A version folder, read and checked: its model.json, and the files that it refers to by name."""

    folder: Path
    model: spec.ModelSpec
    files: Mapping[str, bytes]

    @property
    def title(self) -> str:
        """Return name@version, for people."""
        return f"{self.model.name}@{self.model.version}"

    def cell(self, variant: spec.Variant = "fp32") -> ChunkCell:
        """Return the graph of a variant in onnxruntime."""
        return ChunkCell(self.files[self.model.variants[variant].file])

    def served(
        self, inputs: Iterable[NDArray[Any]], variant: spec.Variant = "fp32"
    ) -> list[NDArray[np.float32]]:
        """Return what a variant answers to whole sequences, in batches as the service runs them.

        Args:
            inputs: int64 (T,) or float32 (T, F) each.
            variant: whose weights.
        Returns:
            For each float32 (T, outputs), or (1, outputs) of a pooled network.
        """
        if self.model.network.kind == "whole":
            return WholeGraph(self.files[self.model.variants[variant].file]).served(inputs)
        return self.cell(variant).served(inputs)


def find_version(where: str, repository: Path) -> Version:
    """Find a version by its folder, or by name@version in a repository.

    Raises:
        TrainingError: it is not there, or is not what the contract calls for.
    """
    name, at, number = where.rpartition("@")
    folder = (
        repository / name / number if at and number.isdecimal() and not Path(where).exists() else Path(where)
    )
    if not folder.is_dir():
        raise TrainingError(
            f"{where}: expected a version's folder, or name@version in {repository}, found none"
        )
    folder = folder.absolute()
    try:
        model, _, files = spec.read_version(folder)
    except spec.SpecError as error:
        raise TrainingError(f"{where}: {error}") from error
    return Version(folder, model, files)
