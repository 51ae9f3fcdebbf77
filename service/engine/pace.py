"""How fast an engine is, and whether there is time: plain arithmetic on what ticks have measured."""

from collections.abc import Iterable
from typing import NamedTuple

from service.engine.sequence import Goal, Sequence
from service.errors import DeadlineTooNear

_RETRY_LEAST_S, _RETRY_MOST_S = 0.02, 10.0
_SMOOTHING = 0.05
# Those who come later share the ticks, too, and answers have to travel: under load an estimate has to leave
# so much room.
_MARGIN = 1.5


class Pace:
    """Measured speed: time steps a second in full chunk ticks, how many rows share them, and seconds from one
    sequence's end to the next.

    A chunk tick takes as long as its steps and a fixed number more would, so that short ticks and full ones
    measure the same speed.

    Args:
        steps_per_second: known before the first tick; 0: unknown.
        overhead: a chunk tick's fixed cost, in steps of one row.
    """

    def __init__(self, steps_per_second: float, overhead: float) -> None:
        self.steps_per_second = self._best = steps_per_second
        self.usual_rows = 0.0
        self._overhead = overhead
        self._seconds_per_sequence = 0.0
        self._last_end: float | None = None
        self._since: float | None = None

    def ran(self, rows: int, steps: int, started: float, now: float, has_prefill: bool) -> None:
        """A tick has run. What passes between two chunk ticks while rows have input left counts, too: step
        ticks, arrivals, other threads.

        Args:
            rows: of the tick.
            steps: of a chunk tick, padding included; 0: it was a step tick.
            started, now: seconds, of the tick.
            has_prefill: rows have input left.
        """
        if steps:
            self.usual_rows += _SMOOTHING * (rows - self.usual_rows)
            self.ran_chunk(steps, now - (started if self._since is None else self._since))
        if steps or not has_prefill:
            self._since = now if has_prefill else None

    def ran_chunk(self, steps: int, seconds: float) -> None:
        """So many steps of a chunk tick have taken so long. One tick has a bounded say: a machine that
        stalled for once is not a slow one.
        """
        if seconds > 0:
            measured = (self._overhead + steps) / seconds
            self.steps_per_second += (_SMOOTHING if self.steps_per_second else 1.0) * (
                measured - self.steps_per_second
            )
            self._best = max(self._best, self.steps_per_second)

    def seconds_for(self, steps: float, is_idle: bool) -> float:
        """The time that steps take, 0 where nothing is known.

        An idle engine has the best pace that it ever had: if a slow one measured under load were held against
            the next request, none might run
        that could correct it.
        """
        pace = self._best if is_idle else self.steps_per_second / _MARGIN
        return steps / pace if pace else 0.0

    def ended(self, count: int, now: float) -> None:
        """So many sequences have ended since the last call, while there was work."""
        if self._last_end is not None:
            pace = (now - self._last_end) / count
            self._seconds_per_sequence += min(1.0, _SMOOTHING * count) * (pace - self._seconds_per_sequence)
        self._last_end = now

    def idle(self) -> None:
        """Nothing runs: the time until the next end says nothing, and who comes next shares with nobody."""
        self._last_end = self._since = None
        self.usual_rows = 0.0

    def retry_after_s(self, num_waiting: int) -> float:
        """When a caller who was refused should try again."""
        return _within(self._seconds_per_sequence * num_waiting)


class Load(NamedTuple):
    """What has its turn before something new.

    Attributes:
        rows: sequences with input left.
        steps: that chunk ticks have to run for them.
        capacity: most rows of a chunk tick.
        usual_rows: of late in a chunk tick.
    """

    rows: int
    steps: int
    capacity: int
    usual_rows: float = 0.0


def steps_until_answer(sequences: Iterable[Sequence], load: Load) -> float:
    """Steps that run before new sequences have their answers, a generation its first token.

    Rows of a chunk tick advance together. So those that must end before there is a row for the new ones run
    whole, and those beside them run as far as the new ones do. Where others keep coming, as many as of late
    share all the way. Optimistic: step ticks in between, and slots held by streams, cost nothing. Never falls
    as the load or the input grows.
    """
    costs = [sequence.prefill_steps + (sequence.goal is Goal.GENERATE) for sequence in sequences]
    before = max(0, load.rows - load.capacity + 1)
    mean = load.steps / load.rows if load.rows else 0.0
    beside = max(
        (load.rows - before) * min(mean, max(costs)), min(load.usual_rows, load.capacity - 1) * max(costs)
    )
    return before * mean + beside + sum(costs)


def ensure_in_time(name: str, left: float, needed: float) -> None:
    """Refuse what cannot be answered in time.

    Args:
        name: of the model.
        left: seconds until the deadline.
        needed: seconds until the answer.

    Raises:
        DeadlineTooNear: the answer would come after the deadline.
    """
    if needed > left:
        raise DeadlineTooNear(
            f"model {name}: expected a deadline at least {needed:.3f} s away, found {left:.3f} s",
            _within(needed - left),
        )


def _within(seconds: float) -> float:
    return min(_RETRY_MOST_S, max(_RETRY_LEAST_S, seconds))
