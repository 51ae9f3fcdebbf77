"""Sends the time steps of a sequence over a stream: at a rate, or one by one."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from seqserve.aio import AsyncClient
from seqserve.errors import InvalidArgument
from seqserve.playground.live import MAX_ROWS_A_PUSH, bounded_rate, rows_due
from seqserve.playground.sequence_inputs import joined
from seqserve.results import ModelInfo
from seqserve.sequence_results import SequenceOutput
from seqserve.waiting import wait_until_set

MAX_PARTS = 200_000
_SHORTEST_WAIT_S = 0.005


class LiveRun:
    """One sequence whose time steps are sent as they are due; the server keeps its state.

    Args:
        model: The model.
        parts: What to send, oldest first: rows, token ids, or pieces of text.
        initial: What the init graph takes; None without one.

    Attributes:
        sent: Number of parts sent so far.
    """

    def __init__(
        self, model: ModelInfo, parts: list[Any], initial: dict[str, list[float]] | None = None
    ) -> None:
        self._model = model
        self._parts = parts[:MAX_PARTS]
        self._initial = initial
        self._changed = asyncio.Event()
        self._single = 0
        self._rate: float | None = None
        self._began_s = 0.0
        self._base = 0
        self.sent = 0

    @property
    def total(self) -> int:
        """Number of parts, those sent among them."""
        return len(self._parts)

    @property
    def is_playing(self) -> bool:
        """True if parts are sent at a rate now, and some are left."""
        return self._rate is not None and self.sent < self.total

    def play(self, rate: float | None) -> None:
        """Send the parts at a rate from now on; it is moved into the bounds."""
        self._rate = bounded_rate(rate)
        self._began_s, self._base = time.monotonic(), self.sent
        self._changed.set()

    def pause(self) -> None:
        """Send nothing more until `play` or `step`."""
        self._rate = None
        self._changed.set()

    def step(self) -> None:
        """Send the next part; has no effect where none is left."""
        self._single += 1
        self._changed.set()

    def add(self, part: Any) -> None:
        """Add a part at the end, and send all that are left up to it."""
        if self.total < MAX_PARTS:
            self._parts.append(part)
            self._single = self.total - self.sent
            self._changed.set()

    async def follow(
        self,
        client: AsyncClient,
        show: Callable[[SequenceOutput], None],
        refuse: Callable[[InvalidArgument], None],
    ) -> None:
        """Send what is due over one stream until the task is cancelled.

        Args:
            client: The client.
            show: Called with each output, a row for each time step sent.
            refuse: Called with the refusal of parts, which are left out; the run is then paused.

        Raises:
            SeqserveError: The call failed.
        """
        async with client.infer_stream(
            model=self._model.name, version=self._model.version, every=True
        ) as stream:
            is_begun = False
            while True:
                count = await self._due()
                parts = self._parts[self.sent : self.sent + count]
                self.sent += count
                try:
                    output = await stream.push(joined(parts), initial=None if is_begun else self._initial)
                except InvalidArgument as error:
                    self.pause()
                    refuse(error)
                    continue
                is_begun = True
                show(output)

    async def _due(self) -> int:
        """Wait until parts are due; return how many."""
        while True:
            self._changed.clear()
            self._single = min(self._single, self.total - self.sent)
            if self._single:
                count = min(self._single, MAX_ROWS_A_PUSH)
                self._single -= count
                return count
            if self._rate is None or self.sent >= self.total:
                await self._changed.wait()
                continue
            elapsed_s = time.monotonic() - self._began_s
            if count := rows_due(elapsed_s, self._rate, self.sent - self._base, self.total - self._base):
                return count
            due_s = (self.sent - self._base) / self._rate - elapsed_s
            await wait_until_set(self._changed, max(due_s, _SHORTEST_WAIT_S))
