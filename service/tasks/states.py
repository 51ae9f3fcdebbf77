"""States between calls: what a generation, a series or a sequence goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.request import StateRow

__all__ = ["SeriesState", "StateRow", "StepState", "TextState"]


@dataclass(frozen=True, slots=True)
class TextState:
    """Resumable state of a generation.

    Attributes:
        position: number of tokens of the sequence so far, including the pending one.
        seed: sampling seed.
        pending: last token, not yet fed to the network.
        rows: recurrent state before the pending token, one float32 (H,) a state tensor.
    """

    position: int
    seed: int
    pending: int
    rows: StateRow


@dataclass(frozen=True, slots=True)
class SeriesState:
    """Resumable state of a forecast series.

    Attributes:
        position: number of observations so far.
        levels: level of each column after the last observation.
        rows: recurrent state after the last observation, one float32 (H,) a state tensor.
    """

    position: int
    levels: Sequence[float]
    rows: StateRow


@dataclass(frozen=True, slots=True)
class StepState:
    """Resumable state of a sequence whose steps come one after the other.

    Attributes:
        position: number of time steps so far.
        rows: recurrent state after the last step, one float32 (H,) a state tensor.
    """

    position: int
    rows: StateRow
