"""Declares what a user may say about a foreign file where the file alone leaves it open."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Choices:
    """Choices for the readers of foreign files and for the ladder. The defaults leave everything to be found.

    Attributes:
        state: pairs of graph input and graph output that carry the state of a streaming graph.
        data: name of the graph's input that holds the sequence; None: it is found.
        output: name of the graph's output that is served; None: it is found.
        overlap: features of a time step that stand before the next one, too, as audio frames' context does.
        width: numbers of a time step, where the graph leaves their number open; None: the graph says it.
        fixed: graph inputs that always have the same number, such as a sample rate.
        encoder: file of the encoder whose end is the start of this network; None: there is none.
        lengths: name of the graph's input that holds the sequences' lengths; None: it is found.
        window: number of time steps that every sequence is brought to; None: sequences keep their lengths.
        time_first: whether the data is [time, batch, ...]; None: it is found.
    """

    state: tuple[tuple[str, str], ...] = ()
    data: str | None = None
    output: str | None = None
    overlap: int = 0
    width: int | None = None
    fixed: Mapping[str, float | int] = field(default_factory=dict)
    encoder: Path | None = None
    lengths: str | None = None
    window: int | None = None
    time_first: bool | None = None
