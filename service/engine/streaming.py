"""The engine as asyncio sees it: submit requests, await their outputs or iterate over them.

Everything here runs in the event loop's thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import structlog

from service.engine.request import Caller, Output, Receiver, Request, Row, TokenBatch
from service.observability.times import Times

_log = structlog.get_logger(__name__)


class Submitter(Protocol):
    """The callers' side of a model's engines."""

    def submit(self, rows: list[Row]) -> None:
        """Put rows of one client into the queue, all or none."""
        ...

    def cancel(self, rows: list[Row]) -> None:
        """Free the rows at the next turn; those that are over are ignored."""
        ...

    def resume(self, row: Row) -> None:
        """Let a row go on that was suspended because its reader was slow."""
        ...


def deliver(outputs: list[Output]) -> None:
    """Hand a turn's outputs to their receivers, in order: one call a turn."""
    for row, output in outputs:
        try:
            row.receiver.receive(output)
        except Exception as error:  # a fault of one receiver, which the others do not pay for
            _log.error("output not delivered", exc_info=error)


class TokenStream:
    """An async iterator of one generation's tokens, in batches of all that have come since the last.

    Args:
        engine: is told when a reader whose row may be suspended has caught up.
        max_backlog: tokens not yet taken at which the row is suspended.
    """

    def __init__(self, engine: Submitter, max_backlog: int) -> None:
        self.max_backlog = max_backlog
        self.row: Row | None = None
        self._engine = engine
        self._batches: list[TokenBatch] = []
        self._error: BaseException | None = None
        self._has_ended = False
        self._wake = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Tokens received and not yet taken."""
        return sum(len(batch.ids) for batch in self._batches)

    def receive(self, output: Any) -> None:
        """Add a batch of tokens, or the error that ends the stream."""
        if isinstance(output, BaseException):
            self._error = output
        else:
            if self._batches and self._batches[-1].state is not None:
                # A slow reader's memory is bounded in tokens, of which each could have a state.
                self._batches[-1] = self._batches[-1]._replace(state=None)
            self._batches.append(output)
        self._wake.set()

    def __aiter__(self) -> AsyncIterator[TokenBatch]:
        """Return itself."""
        return self

    async def __anext__(self) -> TokenBatch:
        """Wait for at least one token and take all that there are; the last batch is marked `is_last`.

        Raises:
            ServiceError: the generation failed; tokens from before the failure have been taken.
            StopAsyncIteration: the last batch has been taken.
        """
        if self._has_ended:
            raise StopAsyncIteration
        while not self._batches:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        backlog = self.backlog
        taken, self._batches = self._batches, []
        self._has_ended = taken[-1].is_last
        if backlog >= self.max_backlog and self.row is not None:
            self._engine.resume(self.row)
        if len(taken) == 1:
            return taken[0]
        ids = [token for batch in taken for token in batch.ids]
        logprobs = [logprob for batch in taken for logprob in batch.logprobs]
        return TokenBatch(ids, logprobs, taken[-1].is_last, taken[-1].state)


@asynccontextmanager
async def open_stream(
    engine: Submitter, request: Request, caller: Caller, max_backlog: int
) -> AsyncIterator[TokenStream]:
    """Start a generation; leaving the context ends it.

    Args:
        engine: runs it.
        request: with the goal GENERATE.
        caller: who asks.
        max_backlog: tokens generated ahead of a slow reader before its row is suspended.

    Raises:
        Overloaded, ModelFailure: nothing was started.
    """
    stream = TokenStream(engine, max_backlog)
    stream.row = row = _row_of(request, stream, caller)
    _start(engine, [row], caller)
    try:
        yield stream
    finally:
        engine.cancel([row])


async def run_all(engine: Submitter, requests: Sequence[Request], caller: Caller) -> list[Any]:
    """Run requests side by side and wait for all of them; a caller who is cancelled cancels them.

    Args:
        engine: runs them.
        requests: at least one, with the goal LAST or SCORE.
        caller: who asks.

    Returns:
        The outputs in the order of the requests. LAST: float32 (outputs,), or `Final` if the state is kept;
        SCORE: float32 (T - 1,).

    Raises:
        Overloaded, DeadlineExceeded, ModelFailure: the rest of the requests are cancelled.
    """
    answers = [_Answer() for _ in requests]
    rows = [_row_of(*pair, caller) for pair in zip(requests, answers, strict=True)]
    _start(engine, rows, caller)
    try:
        if len(answers) == 1:
            return [await answers[0].future]
        return await asyncio.gather(*(answer.future for answer in answers))
    except BaseException:
        engine.cancel(rows)
        raise


async def run_one(engine: Submitter, request: Request, caller: Caller) -> Any:
    """Run one request and wait for its output, as `run_all` does."""
    return (await run_all(engine, [request], caller))[0]


def _row_of(request: Request, receiver: Receiver, caller: Caller) -> Row:
    return Row(request, receiver, Times(time.monotonic()), caller.deadline, caller.client)


def _start(engine: Submitter, rows: list[Row], caller: Caller) -> None:
    engine.submit(rows)
    if caller.trace is not None:
        caller.trace.add(rows)


class _Answer:
    """The receiver of one row's only output. Nothing is streamed, so the row is never suspended for it."""

    __slots__ = ("future",)

    backlog = 0
    max_backlog = 1

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def receive(self, output: Any) -> None:
        """Take the output; what comes after a cancellation is dropped."""
        if self.future.done():
            return
        if isinstance(output, BaseException):
            self.future.set_exception(output)
        else:
            self.future.set_result(output)
