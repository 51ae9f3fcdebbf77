"""The calendar of a series: which cycles its rows can show, and their sines and cosines.

Known ahead: the step of the rows is the same, so that the time of a row tells that of the rows after it.
"""

from collections.abc import Sequence
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from service.contract.spec import CYCLES, Cycle
from training.errors import TrainingError

Floats = NDArray[np.float64]

AUTO, NONE = "auto", "none"
# A cycle is chosen where so many rows fall into it, and the training part holds it so many times: a part of a
# year teaches a network nothing of the months that it does not hold.
ROWS_A_CYCLE: dict[Cycle, int] = {"hour": 4, "weekday": 7, "month": 12}
CYCLES_SEEN = 2
_MICROSECONDS = 1e6


def chosen_cycles(option: str, moments: NDArray[np.int64], develop: int) -> tuple[Cycle, ...]:
    """Return the cycles of the calendar that the network sees.

    Args:
        option: auto, none, or names of cycles with commas between them.
        moments: microseconds since 1970 of the rows, rising; none: the rows have no dates.
        develop: where the training part ends.

    Raises:
        TrainingError: a name is unknown or given twice, or the rows have no dates.
    """
    if option == NONE or (option == AUTO and not len(moments)):
        return ()
    if option == AUTO:
        step = float(np.median(np.diff(moments))) / _MICROSECONDS
        span = float(moments[develop - 1] - moments[0]) / _MICROSECONDS
        return tuple(
            cycle
            for cycle, (length, _) in CYCLES.items()
            if step * ROWS_A_CYCLE[cycle] <= length and span >= CYCLES_SEEN * length
        )
    named = [name.strip() for name in option.split(",")]
    known: tuple[Cycle, ...] = get_args(Cycle)
    if len(set(named)) != len(named) or not set(named) <= set(known):
        raise TrainingError(
            f"--calendar: expected {AUTO}, {NONE}, or different ones of {', '.join(known)}, found {option!r}"
        )
    if not len(moments):
        raise TrainingError("--calendar: expected with a --date-column alone, found rows without dates")
    return tuple(cycle for cycle in known if cycle in named)


def seconds_of(moments: NDArray[np.int64]) -> Floats:
    """Return microseconds since 1970 as seconds, which are the values of a calendar column."""
    return moments / _MICROSECONDS


def cycle_features(seconds: Floats, cycles: Sequence[Cycle]) -> list[Floats]:
    """Return sine and cosine of each cycle, (N,) each, by the formula of `Column`."""
    found: list[Floats] = []
    for cycle in cycles:
        length, offset = CYCLES[cycle]
        turns = (seconds + offset) / length
        angle = 2 * np.pi * (turns - np.floor(turns))
        found += [np.sin(angle), np.cos(angle)]
    return found
