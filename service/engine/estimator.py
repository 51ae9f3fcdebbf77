"""Throughput of an engine, and whether a deadline can be met: arithmetic on what ticks have measured."""

from collections.abc import Iterable
from typing import NamedTuple

from service.engine.request import Row
from service.errors import DeadlineTooNear

_MIN_RETRY_S, _MAX_RETRY_S = 0.02, 10.0
_SMOOTHING = 0.05
# Requests that come later share the ticks, too, and answers have to travel: under load an estimate leaves
# this room.
_MARGIN = 1.5


class Estimator:
    """Measured throughput: time steps a second in full chunk ticks, and seconds from one end to the next.

    A chunk tick takes as long as its steps and a fixed number more would, so that short ticks and full ones
    measure the same throughput.

    Args:
        steps_per_second: known before the first tick; 0: unknown.
        overhead: a chunk tick's fixed cost, in steps of one row.
    """

    def __init__(self, steps_per_second: float, overhead: float) -> None:
        self.steps_per_second = self._best = steps_per_second
        self.usual_rows = 0.0
        self._overhead = overhead
        self._seconds_per_sequence = 0.0
        self._num_ended = 0
        self._last_end: float | None = None
        self._since: float | None = None

    def add_tick(self, rows: int, steps: int, started: float, now: float, has_prefill: bool) -> None:
        """Count a tick.

        The time between two chunk ticks counts, too, while rows have prefill steps left: step ticks,
        arrivals, other threads.

        Args:
            rows: rows of the tick.
            steps: time steps of a chunk tick, padding included; 0: it was a step tick.
            started: seconds at its start.
            now: seconds at its end.
            has_prefill: rows have prefill steps left.
        """
        if steps:
            self.usual_rows += _SMOOTHING * (rows - self.usual_rows)
            self.add_chunk(steps, now - (started if self._since is None else self._since))
        if steps or not has_prefill:
            self._since = now if has_prefill else None

    def add_chunk(self, steps: int, seconds: float) -> None:
        """Count the steps of a chunk tick and its seconds, smoothed, so that one stall counts little."""
        if seconds > 0:
            measured = (self._overhead + steps) / seconds
            weight = _SMOOTHING if self.steps_per_second else 1.0
            self.steps_per_second += weight * (measured - self.steps_per_second)
            self._best = max(self._best, self.steps_per_second)

    def seconds_for(self, steps: float, is_idle: bool) -> float:
        """Return the seconds that time steps take, 0 where nothing is known.

        An idle engine is taken to have the best throughput that it ever had: if a slow one measured under
        load were held against the next request, none might run that could correct it.
        """
        throughput = self._best if is_idle else self.steps_per_second / _MARGIN
        return steps / throughput if throughput else 0.0

    def add_end(self) -> None:
        """Count a sequence that has ended."""
        self._num_ended += 1

    def measure_ends(self, now: float) -> None:
        """Measure the seconds from one end to the next, after a tick that ran."""
        count = self._num_ended
        if not count:
            return
        self._num_ended = 0
        if self._last_end is not None:
            seconds = (now - self._last_end) / count
            self._seconds_per_sequence += min(1.0, _SMOOTHING * count) * (
                seconds - self._seconds_per_sequence
            )
        self._last_end = now

    def reset(self) -> None:
        """Forget what an idle time would falsify: the time until the next end, and the rows of a tick."""
        self._last_end = self._since = None
        self.usual_rows = 0.0

    def retry_after_s(self, num_waiting: int) -> float:
        """Return the seconds after which a refused caller should try again."""
        return _clamp(self._seconds_per_sequence * num_waiting)


class Load(NamedTuple):
    """The rows and steps that run before a new row.

    Attributes:
        rows: rows with prefill steps left.
        steps: their prefill steps.
        capacity: rows of a chunk tick at most.
        usual_rows: rows in a chunk tick of late.
    """

    rows: int
    steps: int
    capacity: int
    usual_rows: float = 0.0


def steps_until_answer(rows: Iterable[Row], load: Load) -> float:
    """Return the time steps that run before new rows have their answers, a generation its first token.

    Rows of a chunk tick advance together. So those that must end before there is a place for the new ones run
    whole, and those beside them run as far as the new ones do. Where others keep coming, as many as of late
    share all the way. Optimistic: step ticks in between, and slots held by streams, cost nothing. Never falls
    as the load or the input grows.
    """
    costs = [row.prefill_steps + row.generates for row in rows]
    before = max(0, load.rows - load.capacity + 1)
    mean = load.steps / load.rows if load.rows else 0.0
    shared = min(load.usual_rows, load.capacity - 1) * max(costs)
    beside = max((load.rows - before) * min(mean, max(costs)), shared)
    return before * mean + beside + sum(costs)


def ensure_in_time(name: str, left_s: float, needed_s: float) -> None:
    """Refuse what cannot be answered in time.

    Args:
        name: name of the model.
        left_s: seconds until the deadline.
        needed_s: seconds until the answer.

    Raises:
        DeadlineTooNear: the answer would come after the deadline.
    """
    if needed_s > left_s:
        message = f"model {name}: expected a deadline at least {needed_s:.3f} s away, found {left_s:.3f} s"
        raise DeadlineTooNear(message, _clamp(needed_s - left_s))


def _clamp(seconds: float) -> float:
    return min(_MAX_RETRY_S, max(_MIN_RETRY_S, seconds))
