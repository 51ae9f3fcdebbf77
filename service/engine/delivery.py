"""The engine as asyncio sees it: results delivered, streams of tokens. Everything here lives in the event
loop's thread.

Answers to await are in service.engine.gather.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Sampling
from service.engine.sequence import Caller, Ended, Goal, Result, Sequence, StateRow, Tokens


class Intake(Protocol):
    """Where sequences go: an engine, or a group of them."""

    def submit(self, sequences: list[Sequence]) -> None:
        """Put sequences into the queue, all or none."""
        ...

    def cancel(self, sequences: Iterable[Sequence]) -> None:
        """Their callers have left."""
        ...

    def wake(self) -> None:
        """Look again: a slow reader has caught up."""
        ...


class TokenStream:
    """Tokens of one generation, taken by its reader in whatever lumps they have gathered.

    Args:
        engine: to wake when a reader whose row may have paused catches up.
        most_backlog: tokens not yet taken at which the row pauses.
    """

    def __init__(self, engine: Intake, most_backlog: int) -> None:
        self.most_backlog = most_backlog
        self._engine = engine
        self._gathered: list[Tokens] = []
        self._error: BaseException | None = None
        self._wake = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Tokens gathered and not yet taken. The engine's thread reads it, too; a value one tick old does no
        harm there.
        """
        return sum(len(tokens.ids) for tokens in self._gathered)

    def receive(self, result: Any) -> None:
        """Add tokens, or the error that ends the stream."""
        if isinstance(result, BaseException):
            self._error = result
        else:
            self._gathered.append(result)
        self._wake.set()

    async def take(self) -> Tokens:
        """Wait for at least one token and take all that there are.

        Raises:
            ServiceError: the generation failed; tokens from before the failure have been taken.
        """
        while not self._gathered:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        backlog = self.backlog
        taken, self._gathered = self._gathered, []
        if backlog >= self.most_backlog:
            self._engine.wake()
        if len(taken) == 1:
            return taken[0]
        ids = [one for tokens in taken for one in tokens.ids]
        logprobs = [one for tokens in taken for one in tokens.logprobs]
        return Tokens(ids, logprobs, taken[-1].is_last, taken[-1].state)


def deliver(results: list[Result]) -> None:
    """Hand a tick's results to their receivers, in order: one call a tick."""
    for sequence, result in results:
        sequence.receiver.receive(result)


@dataclass(frozen=True, slots=True)
class Start:
    """What a generation goes on from.

    Attributes:
        inputs: tokens given, int64 (T,), T >= 1.
        position: tokens of the sequence before them.
        state: before them; None: zeros, the start of a sequence.
    """

    inputs: NDArray[np.int64]
    position: int = 0
    state: StateRow | None = None


@asynccontextmanager
async def generate(
    engine: Intake,
    start: Start,
    sampling: Sampling,
    max_tokens: int,
    wants_logprobs: bool,
    caller: Caller,
    most_backlog: int,
    keeps_state: bool = False,
) -> AsyncIterator[TokenStream]:
    """Start a generation; leaving the context ends it.

    Args:
        engine: of the model.
        start: what it goes on from.
        sampling: how tokens are picked.
        max_tokens: after so many the last one is marked `is_last`.
        wants_logprobs: compute each token's log-probability.
        caller: who asks.
        most_backlog: tokens generated ahead of a slow reader before its row pauses.
        keeps_state: the last tokens bring the state before the last of them.

    Raises:
        Overloaded: the queue is full.
    """
    stream = TokenStream(engine, most_backlog)
    sequence = Sequence(
        start.inputs,
        Goal.GENERATE,
        stream,
        time.monotonic(),
        caller.deadline,
        sampling,
        max_tokens,
        wants_logprobs,
        start.state,
        keeps_state,
        start.position,
        caller.client,
    )
    engine.submit([sequence])
    if caller.trace is not None:
        caller.trace.add([sequence])
    try:
        yield stream
    finally:
        engine.cancel([sequence])


class _Once:
    """Takes the one result of a sequence that somebody awaits."""

    # Nothing is streamed, so that the row never pauses (`service.engine.sequence.Receiver`).
    backlog = 0
    most_backlog = 1

    def __init__(self) -> None:
        self.future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

    def receive(self, result: Any) -> None:
        """Take the result; nobody waits for it after a cancellation."""
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


async def state_after(engine: Intake, start: Start, caller: Caller) -> StateRow:
    """The state after all of the given tokens; whoever is cancelled cancels them.

    Raises:
        Overloaded, DeadlineExceeded, ModelFailure: from the engine.
    """
    once = _Once()
    sequence = Sequence(
        start.inputs,
        Goal.LAST,
        once,
        time.monotonic(),
        caller.deadline,
        state=start.state,
        keeps_state=True,
        client=caller.client,
    )
    engine.submit([sequence])
    if caller.trace is not None:
        caller.trace.add([sequence])
    try:
        return (await once.future).state
    finally:
        if not once.future.done() or once.future.cancelled():
            engine.cancel([sequence])
