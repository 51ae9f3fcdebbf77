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
    """The rows with prefill steps left, active and waiting, that a client's new rows meet.

    Attributes:
        own_rows: rows of the same client.
        own_steps: their prefill steps.
        other_rows: rows of other clients.
        other_steps: their prefill steps.
        other_clients: how many other clients have rows, at least.
        capacity: rows of a chunk tick at most.
        usual_rows: rows in a chunk tick of late.
    """

    own_rows: int
    own_steps: float
    other_rows: int
    other_steps: int
    other_clients: int
    capacity: int
    usual_rows: float = 0.0

    @property
    def share(self) -> int:
        """Rows of a chunk tick that the client gets: places that are free or that others must give up."""
        return max(0, self.capacity // (self.other_clients + 1), self.capacity - self.other_rows)


def steps_until_answer(rows: Iterable[Row], load: Load) -> float:
    """Return the time steps that run before new rows have their answers, a generation its first token.

    Rows of a chunk tick advance together, and rows of other clients give way (`scheduler.plan`). So a client
    waits for its own rows alone until its share of the places has one free; these run whole. Rows beside its
    own run as far as its own do. Where others keep coming, as many as of late share all the way. Optimistic:
    step ticks in between, slots held by streams, and the turns before a row may be preempted cost nothing.
    """
    costs = [row.prefill_steps + row.generates for row in rows]
    longest, total = max(costs), sum(costs)
    usual = min(load.usual_rows, load.capacity - 1) * longest
    if not (load.own_rows or load.other_rows):
        return usual + total
    if not (share := load.share):
        load = _in_turns(load, longest)
        share = load.capacity
    first = max(0, load.own_rows + 1 - share)
    mean = load.own_steps / load.own_rows if load.own_rows else 0.0
    own = first * mean + (load.own_rows - first) * min(mean, longest)
    # Steps that a place runs until the last of the new rows ends.
    duration = max(first * mean / share + longest, (first * mean + total) / share)
    places = load.capacity - min(share, load.own_rows + len(costs))
    others = min(load.other_steps, min(load.other_rows, places) * duration)
    return max(own + others, usual) + total


def _in_turns(load: Load, longest: int) -> Load:
    """Return the rows that run before a client's new row where clients outnumber the places.

    Nobody holds two places, so nobody gives way: each other client has a row before each of the client's own.
    These are taken to be no longer than its own, since the shortest are the first to make room.
    """
    others = min(load.other_rows, load.other_clients * (load.own_rows + 1))
    mean = load.own_steps / load.own_rows if load.own_rows else 0.0
    steps = others * min(load.other_steps / load.other_rows, max(mean, longest))
    return load._replace(
        own_rows=load.own_rows + others,
        own_steps=load.own_steps + steps,
        other_rows=0,
        other_steps=0,
        other_clients=0,
    )


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
