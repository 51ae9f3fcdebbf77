"""A series that is kept open: what has been observed of it stays as a state, and each new observation costs
one step.
"""

import time
from collections.abc import Callable
from typing import Any

from service.engine.sequence import Caller, Ended, Goal
from service.engine.sequence import Sequence as Row
from service.security.state_tokens import SeriesState
from service.tasks.forecasting import Forecast, ForecastingTask, Observations, Observed, Wanted

# In a stream a message holds one series alone.
_FIELDS = ("observations",)


class Following:
    """One series of one model, its observations pushed as they come.

    It receives its own sequences' results (`service.engine.sequence.Receiver`).

    Args:
        task: of the model.
        wanted: steps and quantiles of each forecast.
        state: goes on from there; None: a new series.

    Attributes:
        state: after the last push, or what the series goes on from.
        is_open: a forecast has been made.
    """

    backlog = 0
    most_backlog = 1

    def __init__(self, task: ForecastingTask, wanted: Wanted, state: SeriesState | None = None) -> None:
        self.wanted = wanted
        self._task = task
        self.state = state
        self.is_open = False
        self._sequence: Row | None = None
        self._observed: Observed | None = None
        self._done: Callable[[Forecast | BaseException], None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a push is under way."""
        return self._sequence is not None

    def push(
        self, observations: Observations, caller: Caller, done: Callable[[Forecast | BaseException], None]
    ) -> None:
        """Observe more; one push at a time.

        Args:
            observations: oldest first; of a new series' first push at least as many as the model needs.
            caller: who asks.
            done: called once, in the event loop, with the forecast after them, or with what went wrong: the
                series is then as it was before. Must not raise.

        Raises:
            InvalidArgument: an observation is not what the model takes.
            Overloaded, ModelFailure: nothing was started.
        """
        assert self._sequence is None, "one push at a time"
        before = self.state
        if before is None:
            rows, observed = None, self._task.observe((observations,), _FIELDS, self._task.least_observations)
        else:
            rows, observed = before.rows, self._task.observe((observations,), _FIELDS, 1, before.levels)
        deadline, client, trace = caller
        sequence = Row(
            observed.features[0],
            Goal.LAST,
            self,
            time.monotonic(),
            deadline,
            client=client,
            state=rows,
            keeps_state=True,
        )
        self._task.engine.submit([sequence])
        if trace is not None:
            trace.add([sequence])
        self._sequence, self._observed, self._done = sequence, observed, done

    def cancel(self) -> None:
        """Nobody waits any more."""
        if self._sequence is not None:
            self._task.engine.cancel([self._sequence])
            self._sequence = self._observed = self._done = None

    def receive(self, result: Ended | BaseException) -> None:
        """Take the result of the push under way; after `cancel` it is dropped."""
        observed, done = self._observed, self._done
        if observed is None or done is None:
            return
        self._sequence = self._observed = self._done = None
        done(self._advance(result, observed))

    def _advance(self, result: Any, observed: Observed) -> Forecast | BaseException:
        if isinstance(result, BaseException):
            return result
        try:
            [forecast] = self._task.forecasts([result.output], observed, self.wanted, _FIELDS)
        except (
            Exception
        ) as error:  # even one that nobody foresaw is this caller's, and not the tick's other results'
            return error
        position = (self.state.position if self.state is not None else 0) + len(observed.features[0])
        self.state = SeriesState(position, observed.levels, result.state)
        self.is_open = True
        return forecast
