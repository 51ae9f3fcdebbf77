"""The engine as asyncio sees it: answers to await and streams of tokens. Everything here lives in the event loop's thread."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Sampling
from service.engine.sequence import Ended, Goal, Result, Sequence, StateRow, Tokens


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


class Answer:
    """One result, awaited by one caller."""

    backlog = 0
    most_backlog = 1

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def receive(self, result: Any) -> None:
        """Resolve the future; the answer to a caller who has left is dropped, here and nowhere else."""
        if self.future.done():
            return
        if isinstance(result, BaseException):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


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


async def run(engine: Intake, inputs: Iterable[NDArray[Any]], goal: Goal, deadline: float | None) -> list[NDArray[Any]]:
    """Run many-to-one or scoring sequences side by side.

    Args:
        engine: of the model.
        inputs: one a sequence, int64 (T,) or float32 (T, F).
        goal: LAST or SCORE.
        deadline: monotonic seconds, or None.
    Returns:
        LAST: float32 (outputs,) a sequence; SCORE: float32 (T - 1,). In the order of `inputs`.
    Raises:
        Overloaded, DeadlineExceeded, ModelFailure: the rest of the sequences are cancelled.
    """
    now = time.monotonic()
    answers = [(Answer(), one) for one in inputs]
    sequences = [Sequence(one, goal, answer, now, deadline) for answer, one in answers]
    engine.submit(sequences)
    try:
        return list(await asyncio.gather(*(answer.future for answer, _ in answers)))
    finally:
        engine.cancel(sequences)


async def advance(engine: Intake, inputs: NDArray[Any], state: StateRow | None, deadline: float | None) -> tuple[NDArray[np.float32], StateRow]:
    """Run a sequence's next steps from a state that the caller keeps.

    Args:
        engine: of the model.
        inputs: int64 (T,) or float32 (T, F), T >= 1.
        state: float32 (H,) a state tensor; None: zeros, the start of a sequence.
        deadline: monotonic seconds, or None.
    Returns:
        The head's output at the last step, float32 (outputs,), and the state after it.
    Raises:
        Overloaded, DeadlineExceeded, ModelFailure: the caller's state is still good.
    """
    answer = Answer()
    sequence = Sequence(inputs, Goal.LAST, answer, time.monotonic(), deadline, state=state, keeps_state=True)
    engine.submit([sequence])
    try:
        ended: Ended = await answer.future
    finally:
        engine.cancel([sequence])
    return ended.output, ended.state


@asynccontextmanager
async def generate(
    engine: Intake,
    prompt: NDArray[Any],
    sampling: Sampling,
    max_tokens: int,
    wants_logprobs: bool,
    deadline: float | None,
    most_backlog: int,
) -> AsyncIterator[TokenStream]:
    """Start a generation; leaving the context ends it.

    Args:
        engine: of the model.
        prompt: int64 (T,), T >= 1.
        sampling: how tokens are picked.
        max_tokens: after so many the last one is marked `is_last`.
        wants_logprobs: compute each token's log-probability.
        deadline: monotonic seconds, or None.
        most_backlog: tokens generated ahead of a slow reader before its row pauses.
    Raises:
        Overloaded: the queue is full.
    """
    stream = TokenStream(engine, most_backlog)
    sequence = Sequence(prompt, Goal.GENERATE, stream, time.monotonic(), deadline, sampling, max_tokens, wants_logprobs)
    engine.submit([sequence])
    try:
        yield stream
    finally:
        engine.cancel([sequence])
