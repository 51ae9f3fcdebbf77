"""Declares what step ticks of several steps cost, and chooses their sizes by that."""

from typing import NamedTuple

from service.engine.cell import StepSize
from service.engine.multi_step import MAX_STEPS

# Between two messages of a stream there is so much time for each stream that generates: a message costs gRPC
# 0.05 to 0.2 ms (measured), and writing should leave most of a core to the engine.
WRITE_S = 0.00075
# A row that comes waits for the end of a tick of several steps.
MAX_STEP_TICK_S = 0.02


class StepCost(NamedTuple):
    """Seconds of a step in ticks of several steps, of so many rows; 0: single ones are no slower.

    Attributes:
        rows: rows of the ticks.
        seconds: where all tokens may be picked.
        cut_seconds: where top_k or top_p of some row excludes tokens.
    """

    rows: int
    seconds: float
    cut_seconds: float


def step_sizes(
    costs: tuple[StepCost, ...], write_interval_s: float, longest_s: float = MAX_STEP_TICK_S
) -> tuple[StepSize, ...]:
    """Return the steps of ticks that end within the interval of a stream: no stream waits longer for tokens.

    Args:
        costs: by rows, which rise.
        write_interval_s: shortest time between two batches of a stream's tokens.
        longest_s: seconds that any tick may take.
    """
    sizes: list[StepSize] = []
    for rows, *seconds in costs:
        tick_s = min(longest_s, write_interval_s + rows * WRITE_S)
        sizes.append(StepSize(rows, *(_steps(one, tick_s) for one in seconds)))
    return tuple(sizes)


def _steps(seconds: float, tick_s: float) -> int:
    return max(1, min(MAX_STEPS, int(tick_s / seconds))) if seconds else 1
