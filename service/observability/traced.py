"""The trace of a call as the other rooms see it; they tell it numbers and names of models, and no texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.observability.times import Times


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of a generation; None where the caller has not set them.

    Attributes:
        max_tokens: tokens to generate.
        temperature, top_k, top_p, seed: how tokens are picked.
        num_stops: number of stop strings.
    """

    max_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    num_stops: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """End of a generation that was not broken off.

    Attributes:
        finish: why it has ended: length or stop.
        input_tokens: tokens of its prompt.
        output_tokens: tokens that were generated.
    """

    finish: str
    input_tokens: int
    output_tokens: int


class TracedRow(Protocol):
    """Sequence of a traced call, as the engine has it."""

    @property
    def times(self) -> Times:
        """Times of its stages, which the engine sets as they are reached."""
        ...

    @property
    def generates(self) -> bool:
        """True where tokens are decoded after the prefill."""
        ...

    @property
    def prefill_steps(self) -> int:
        """Number of time steps of its prefill."""
        ...


class Trace(Protocol):
    """Trace of one call, which reads the times of its sequences when the call is over."""

    def add(self, rows: Sequence[TracedRow]) -> None:
        """Take sequences of the call that have just been submitted."""

    def serve(self, model: str, version: int, task: str) -> None:
        """Take the version that answers a request of the call."""

    def ask(self, asked: Asked) -> None:
        """Take the options of a generation that begins."""

    def answer(self, answered: Answered) -> None:
        """Take the end of a generation."""
