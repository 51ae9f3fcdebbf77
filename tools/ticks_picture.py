"""Draw docs/ticks.svg: which sequences each tick of an engine runs. `python -m tools.ticks_picture`.

The engine is the service's own, over a cell that computes nothing but notes what it is asked to run. Its
clock stands still, so the picture is the same each time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from prometheus_client import CollectorRegistry

from service.engine.cell import Shape
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal, Request, Row
from service.observability.metrics import Metrics
from service.observability.times import Times
from service.runtime import Chunk
from tools.svg import BLACK, BLUE, GREY, ORANGE, PALE, WHITE, box, line, picture, words

PATH: Final = Path(__file__).parents[1] / "docs" / "ticks.svg"

_SLOTS: Final = 4
_CHUNK: Final = 4  # time steps of a chunk tick at most
_MAX_TURNS: Final = 100
_VOCABULARY: Final = 2


@dataclass(frozen=True, slots=True)
class Arrival:
    """A sequence that arrives before a turn.

    Attributes:
        turn: number of that turn, from 0.
        steps: time steps of its input.
        tokens: tokens that it generates; 0: it is classified.
    """

    turn: int
    steps: int
    tokens: int = 0

    @property
    def label(self) -> str:
        """What the picture calls it."""
        return f"prompt of {self.steps}, {self.tokens} tokens" if self.tokens else f"text of {self.steps}"


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick: whether it is a step tick, and by sequence how many time steps it ran of it."""

    is_step: bool
    steps: dict[int, int]


ARRIVALS: Final = (
    Arrival(0, 14),
    Arrival(0, 6),
    Arrival(0, 3),
    Arrival(0, 7, 6),
    Arrival(2, 9),
    Arrival(3, 2, 5),
    Arrival(3, 4),
    Arrival(8, 5),
)


class _NotingCell:
    """A cell that computes nothing, keeps each row's number as its state, and notes what it runs."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, dict[int, int]]] = []  # widest row, and steps by number of the sequence

    def bind(self, chunk: Chunk) -> "_BoundRun":
        return _BoundRun(self, chunk)


class _BoundRun:
    def __init__(self, cell: _NotingCell, chunk: Chunk) -> None:
        self._cell, self._chunk = cell, chunk

    def run(self) -> None:
        chunk = self._chunk
        chunk.after[0][:] = chunk.state[0]
        chunk.output[:] = 0
        numbers = chunk.state[0][:, 0].astype(int).tolist()
        steps = dict(zip(numbers, chunk.lengths.tolist(), strict=True))
        self._cell.runs.append((chunk.inputs.shape[1], steps))


class _Reader:
    """A receiver whose caller reads at once."""

    backlog = 0
    max_backlog = 1 << 60

    def receive(self, output: Any) -> None:
        """Drop the output: only ticks are drawn."""


def ticks_of(arrivals: Sequence[Arrival]) -> list[Tick]:
    """Run sequences through an engine and return its ticks in order."""
    cell = _NotingCell()
    metrics = Metrics(CollectorRegistry()).for_model("picture")
    limits = Limits(_SLOTS, _CHUNK, overhead=1.0)
    engine = Engine("picture", cell, Shape(None, _VOCABULARY, (1,)), limits, metrics, clock=lambda: 0.0)
    group = EngineGroup([engine], len(arrivals))
    ticks: list[Tick] = []
    for turn in range(_MAX_TURNS):
        rows = [_row(number, one) for number, one in enumerate(arrivals) if one.turn == turn]
        if rows:
            group.submit(rows)
        num_step_ticks = sum(metrics.tick_seconds["step"].counts)
        busy = engine.run_turn().is_busy
        is_step = sum(metrics.tick_seconds["step"].counts) > num_step_ticks
        ticks += [Tick(is_step, steps) for _, steps in cell.runs]
        cell.runs.clear()
        if not busy and turn >= max(one.turn for one in arrivals):
            return ticks
    raise RuntimeError(f"the engine is still busy after {_MAX_TURNS} turns")


def _row(number: int, arrival: Arrival) -> Row:
    goal = Goal.GENERATE if arrival.tokens else Goal.LAST
    state = (np.array([number], np.float32),)
    request = Request(np.zeros(arrival.steps, np.int64), goal, max_tokens=arrival.tokens, state=state)
    return Row(request, _Reader(), Times(0.0))


_LEFT, _TOP, _LANE, _CELL, _GAP = 190, 66, 30, 46, 4


def svg(arrivals: Sequence[Arrival] = ARRIVALS) -> str:
    """Return the picture: a lane for each sequence, a column for each tick, in each cell the time steps."""
    ticks = ticks_of(arrivals)
    width, bottom = _LEFT + len(ticks) * _CELL + 16, _TOP + len(arrivals) * _LANE
    parts = [
        words(16, 26, f"An engine with {_SLOTS} slots: time steps of each sequence in each tick", size=15)
    ]
    parts += _columns(ticks, bottom)
    for number, arrival in enumerate(arrivals):
        parts += _lane(number, arrival, ticks)
    parts += _legend(bottom + 30)
    return picture(width, bottom + 52, "Sequences that join and leave the ticks of an engine", parts)


def _columns(ticks: Sequence[Tick], bottom: int) -> list[str]:
    parts = []
    for number, tick in enumerate(ticks):
        x = _LEFT + number * _CELL
        parts.append(box(x, _TOP - 22, _CELL - _GAP, bottom - _TOP + 24, PALE))
        kind = "step" if tick.is_step else "chunk"
        parts.append(words(x + (_CELL - _GAP) / 2, _TOP - 7, kind, size=11, color=GREY, anchor="middle"))
    return parts


def _lane(number: int, arrival: Arrival, ticks: Sequence[Tick]) -> list[str]:
    y = _TOP + number * _LANE
    places = [place for place, tick in enumerate(ticks) if number in tick.steps]
    parts = [words(16, y + 18, arrival.label)]
    since = _LEFT + arrival.turn * _CELL
    until = _LEFT + places[0] * _CELL
    if until > since:
        parts.append(line(since, y + 13, until, y + 13, GREY, "3 3"))
    for place in places:
        tick = ticks[place]
        x, color = _LEFT + place * _CELL, ORANGE if tick.is_step else BLUE
        parts.append(box(x, y, _CELL - _GAP, _LANE - _GAP, color))
        ink = BLACK if tick.is_step else WHITE
        parts.append(
            words(x + (_CELL - _GAP) / 2, y + 18, str(tick.steps[number]), color=ink, anchor="middle")
        )
    return parts


def _legend(y: int) -> list[str]:
    return [
        box(16, y - 11, 14, 14, BLUE),
        words(36, y, "given input (prefill)"),
        box(176, y - 11, 14, 14, ORANGE),
        words(196, y, "a generated token (decode)"),
        line(396, y - 4, 426, y - 4, GREY, "3 3"),
        words(434, y, "waits for a slot or its tick"),
    ]


if __name__ == "__main__":
    PATH.write_text(svg())
