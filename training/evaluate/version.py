"""Finds and reads the folder of a version that is scored, compared or promoted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.contract import spec
from training.errors import TrainingError
from training.export.chunks import ChunkCell


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
