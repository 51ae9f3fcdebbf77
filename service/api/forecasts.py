"""Observations and forecasts as messages.

A forecast is a tree of some twenty small messages whose numbers alone differ from one to the next. It is
written as bytes, into which the numbers are set, and read from there in one go: building the tree from Python
    takes four times as long.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from itertools import count

from seqserve.v1 import forecasting_pb2 as pb
from service.tasks.forecasting import Forecast

_DOUBLE = struct.Struct("<d")  # as on the wire


def values_of(observations: Iterable[pb.Observation]) -> list[list[float]]:
    """The values of each observation."""
    return [observation.values[:] for observation in observations]


def fill(message: pb.Forecast, forecast: Forecast) -> None:
    """Write a forecast into an empty message."""
    wanted = forecast.wanted
    form = _form(wanted.steps, tuple(wanted.levels))
    message.MergeFromString(form.write([*forecast.numbers, forecast.last_value]))


class _Form:
    """The bytes of a message with blanks for its numbers.

    Args:
        message: holds marks, the first so many, in the order of its fields.
        num_blanks: how many.
    """

    def __init__(self, message: pb.Forecast, num_blanks: int) -> None:
        rest = message.SerializeToString()
        texts: list[bytes] = []
        for mark in map(_mark, range(num_blanks)):
            text, found, rest = rest.partition(_DOUBLE.pack(mark))
            assert found, "a number is missing from its message"
            texts.append(text)
        assert not rest, "a message ends with its last number"
        self._layout = struct.Struct("<" + "".join(f"{len(text)}sd" for text in texts))
        self._parts: list[bytes | float] = [part for text in texts for part in (text, 0.0)]

    def write(self, numbers: Iterable[float]) -> bytes:
        """The message with its numbers."""
        parts = self._parts.copy()
        parts[1::2] = numbers
        return self._layout.pack(*parts)


def _mark(index: int) -> float:
    """A number that nothing else in a forecast is."""
    return 1e300 * (1 + index * 2.0**-40)


@lru_cache(maxsize=256)
def _form(steps: int, levels: tuple[float, ...]) -> _Form:
    marks = map(_mark, count())
    message = pb.Forecast()
    for _ in range(steps):
        step = message.steps.add(value=next(marks))
        for level in levels:
            step.quantiles.add(level=level, value=next(marks))
    message.last_value = next(marks)
    return _Form(message, steps * (1 + len(levels)) + 1)
