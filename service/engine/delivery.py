"""The engine as asyncio sees it: results delivered, streams of tokens. Everything here lives in the event loop's thread.

Answers to await are in service.engine.gather.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from numpy.typing import NDArray

from service.engine.sampling import Sampling
from service.engine.sequence import Caller, Goal, Result, Sequence, Tokens


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
        """Tokens gathered and not yet taken. The engine's thread reads it, too; a value one tick old does no harm there."""
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
        return Tokens(ids, logprobs, taken[-1].is_last)


def deliver(results: list[Result]) -> None:
    """Hand a tick's results to their receivers, in order: one call a tick."""
    for sequence, result in results:
        sequence.receiver.receive(result)


@asynccontextmanager
async def generate(
    engine: Intake,
    prompt: NDArray[Any],
    sampling: Sampling,
    max_tokens: int,
    wants_logprobs: bool,
    caller: Caller,
    most_backlog: int,
) -> AsyncIterator[TokenStream]:
    """Start a generation; leaving the context ends it.

    Args:
        engine: of the model.
        prompt: int64 (T,), T >= 1.
        sampling: how tokens are picked.
        max_tokens: after so many the last one is marked `is_last`.
        wants_logprobs: compute each token's log-probability.
        caller: who asks.
        most_backlog: tokens generated ahead of a slow reader before its row pauses.
    Raises:
        Overloaded: the queue is full.
    """
    stream = TokenStream(engine, most_backlog)
    sequence = Sequence(prompt, Goal.GENERATE, stream, time.monotonic(), caller.deadline, sampling, max_tokens, wants_logprobs, client=caller.client)
    engine.submit([sequence])
    try:
        yield stream
    finally:
        engine.cancel([sequence])
