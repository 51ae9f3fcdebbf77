"""Holds the last outputs of a stream for a chart, and says how many rows are due at a rate."""

from collections import deque
from collections.abc import Sequence
from typing import Any

MAX_POINTS = 400
MAX_LINES = 8
MIN_RATE, MAX_RATE = 0.5, 500.0
MAX_ROWS_A_PUSH = 64


class Live:
    """The last outputs of one sequence, a line for each number of a row.

    Args:
        names: Title of each line; those beyond MAX_LINES are not drawn.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names[:MAX_LINES])
        self._steps: deque[int] = deque(maxlen=MAX_POINTS)
        self._rows: deque[list[float]] = deque(maxlen=MAX_POINTS)

    def add(self, position: int, rows: Sequence[Sequence[float]]) -> None:
        """Add the rows of new time steps.

        Args:
            position: Time steps of the sequence so far, these included.
            rows: Outputs of the last of these steps, oldest first.
        """
        first = position - len(rows) + 1
        self._steps.extend(range(first, position + 1))
        self._rows.extend([list(row[: len(self.names)]) for row in rows])

    @property
    def steps(self) -> list[int]:
        """Numbers of the time steps that are held, 1 being the first of the sequence."""
        return list(self._steps)

    def series(self, colors: Sequence[str]) -> list[dict[str, Any]]:
        """Return the lines as series of an ECharts chart over the categories `steps`.

        Args:
            colors: A colour for each line; they are used again from the first where they end.
        """
        return [
            {
                "name": name,
                "type": "line",
                "data": [row[place] for row in self._rows],
                "symbol": "none",
                "color": colors[place % len(colors)],
                "lineStyle": {"width": 2, "type": ("solid", "dashed")[place // len(colors) % 2]},
            }
            for place, name in enumerate(self.names)
        ]


def bounded_rate(rate: float | None) -> float:
    """Return a rate in rows per second within MIN_RATE and MAX_RATE; the lowest if there is none."""
    return min(max(rate or MIN_RATE, MIN_RATE), MAX_RATE)


def rows_due(elapsed_s: float, rate: float, sent: int, total: int) -> int:
    """Return how many rows to send now, at most MAX_ROWS_A_PUSH, so that `rate` rows a second are sent.

    Args:
        elapsed_s: Seconds since the first row was due, which is due at 0.
        rate: Rows per second.
        sent: Rows sent so far.
        total: Rows that there are.
    """
    due = min(int(elapsed_s * rate) + 1, total)
    return min(max(due - sent, 0), MAX_ROWS_A_PUSH)
