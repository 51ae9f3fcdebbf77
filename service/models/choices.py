"""Declares the settings that the preparation of a version depends on.

Like `service.models.trial` it imports nothing that takes long, so that the process of the trials can be
started before the rest of the server is imported.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from service.contract.spec import Variant

if TYPE_CHECKING:
    from service.models.tuning import Tuning
    from service.settings import Settings

PREPARING = "preparing"  # name of the thread that prepares a version in the server


@dataclass(frozen=True, slots=True)
class Choices:
    """The settings that a preparation depends on; the names and meanings are those of `Settings`."""

    provider: str
    variant: Variant
    threads: int
    engines: int | None
    engine_driver: Literal["auto", "thread", "loop"]
    slots: int | None
    chunk: int | None
    chunk_rows: int | None

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """Take them from the settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__slots__})

    def num_engines(self, tuning: "Tuning") -> int:
        """Return how many engines pay off: on CUDA one, for all work is one device's."""
        measured = min(self.threads, tuning.max_engines) if self.provider == "cpu" else 1
        wished = self.engines or measured
        return min(wished, self.slots) if self.slots else wished
