"""The results of several sequences as one: called back, or awaited. Everything here lives in the event loop's
thread.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from numpy.typing import NDArray

from service.engine.delivery import Intake
from service.engine.sequence import Caller, Goal, Receiver
from service.engine.sequence import Sequence as Row


class Gather:
    """Sequences of one request, run side by side for one result each.

    Args:
        engine: of the model.
        done: called once, when every result is there or the first has failed; not after `cancel`. Must not
            raise: a tick's other results come after it.

    Attributes:
        results: one a sequence, in the order of the inputs; whole once `done` is called, unless `error` is
            set.
        error: what the first to fail has failed with.
    """

    __slots__ = ("_done", "_engine", "_missing", "_sequences", "error", "results")

    # Nothing is streamed, so that no row ever pauses (`service.engine.sequence.Receiver`).
    backlog = 0
    most_backlog = 1

    def __init__(self, engine: Intake, done: Callable[["Gather"], None]) -> None:
        self._engine = engine
        self._done = done
        self._missing = 0
        self._sequences: list[Row] = []
        self.results: list[Any] = []
        self.error: BaseException | None = None

    def submit(self, inputs: Sequence[NDArray[Any]], goal: Goal, caller: Caller) -> None:
        """Start, once.

        Args:
            inputs: one a sequence, at least one, int64 (T,) or float32 (T, F).
            goal: LAST or SCORE.
            caller: who asks.

        Raises:
            Overloaded, ModelFailure: nothing was started.
        """
        now = time.monotonic()
        count = self._missing = len(inputs)
        self.results = [None] * count
        receivers: Iterable[Receiver] = (self,) if count == 1 else map(_Place, repeat(self), range(count))
        deadline, client, trace = caller
        self._sequences = [
            Row(one, goal, receiver, now, deadline, client=client)
            for one, receiver in zip(inputs, receivers, strict=True)
        ]
        self._engine.submit(self._sequences)
        if trace is not None:
            trace.add(self._sequences)

    def receive(self, result: Any) -> None:
        """Take the result of the only sequence."""
        self._take(0, result)

    def cancel(self) -> None:
        """Nobody waits for the results any more: rows are free at the next tick. Does nothing after the
        end.
        """
        if self._missing:
            self._missing = 0
            self._engine.cancel(self._sequences)

    def _take(self, index: int, result: Any) -> None:
        """What comes after the end is dropped, here and nowhere else."""
        if not self._missing:
            return
        if isinstance(result, BaseException):
            self.error = result
            self.cancel()
            self._done(self)
            return
        self.results[index] = result
        self._missing -= 1
        if not self._missing:
            self._done(self)


class _Place:
    """Where the result of one of several sequences goes."""

    __slots__ = ("_gather", "_index")

    backlog = 0
    most_backlog = 1

    def __init__(self, gather: Gather, index: int) -> None:
        self._gather = gather
        self._index = index

    def receive(self, result: Any) -> None:
        """Take the result."""
        self._gather._take(self._index, result)


async def collect(engine: Intake, inputs: Sequence[NDArray[Any]], goal: Goal, caller: Caller) -> list[Any]:
    """Run sequences side by side and wait for all of them; whoever is cancelled cancels them.

    Args:
        engine: of the model.
        inputs: one a sequence, at least one, int64 (T,) or float32 (T, F).
        goal: LAST or SCORE.
        caller: who asks.

    Returns:
        LAST: float32 (outputs,) a sequence; SCORE: float32 (T - 1,). In the order of `inputs`.

    Raises:
        Overloaded, DeadlineExceeded, ModelFailure: the rest of the sequences are cancelled.
    """
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(_: Gather) -> None:
        if not future.done():
            future.set_result(None)

    gather = Gather(engine, done)
    gather.submit(inputs, goal, caller)
    try:
        await future
    finally:
        gather.cancel()
    if gather.error is not None:
        raise gather.error
    return gather.results
