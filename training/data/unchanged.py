"""Notices data that change while a run reads or trains on them.

A run reads its files several times and records their hash; if they change in between, what was trained on and
what is recorded would differ.
"""

from dataclasses import dataclass
from pathlib import Path

from training.data.sources import Source
from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Taken:
    """The data of a run as they were when it began to read them.

    Attributes:
        source: Its files.
        sha256: Hash of their bytes.
        marks: Size, time of change in ns, and number of each file.
    """

    source: Source
    sha256: str
    marks: tuple[tuple[int, int, int], ...]

    def check_after_reading(self) -> None:
        """Check that no file was written or replaced since, not even by the same bytes.

        Raises:
            TrainingError: One was.
        """
        if _marks(self.source) != self.marks:
            raise self._changed("while they were read")

    def check_before_export(self) -> None:
        """Check that the files still hold the bytes that were trained on.

        Raises:
            TrainingError: They do not.
        """
        if _sha256(self.source) != self.sha256:
            raise self._changed("during training")

    def _changed(self, when: str) -> TrainingError:
        names = " and ".join(map(str, _paths(self.source)))
        return TrainingError(
            f"{names}: expected data that stay as they are, found them changed {when}: "
            "train on a copy that nothing writes to"
        )


def take(source: Source) -> Taken:
    """Record the state of a source before it is read.

    Raises:
        TrainingError: A file cannot be read.
    """
    return Taken(source, _sha256(source), _marks(source))


def _paths(source: Source) -> list[Path]:
    return [path for path in (source.path, source.more) if path is not None]


def _sha256(source: Source) -> str:
    try:
        return source.sha256
    except OSError as error:
        raise TrainingError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _marks(source: Source) -> tuple[tuple[int, int, int], ...]:
    try:
        found = [path.stat() for path in _paths(source)]
    except OSError as error:
        raise TrainingError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return tuple((one.st_size, one.st_mtime_ns, one.st_ino) for one in found)
