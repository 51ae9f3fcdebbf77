"""Cuts long work in the event loop into slices, between which other calls run."""

import asyncio
import time

# Seconds of a slice: several times what a pass of the event loop costs, and a fraction of a usual call.
SLICE_S = 0.001


class Pace:
    """Clock of one piece of work, which starts when it is made."""

    __slots__ = ("_started",)

    def __init__(self) -> None:
        self._started = time.monotonic()

    async def rest(self) -> None:
        """Let the event loop make a pass if the work has held it for a whole slice.

        Raises:
            CancelledError: the call was cancelled meanwhile.
        """
        if time.monotonic() - self._started >= SLICE_S:
            await asyncio.sleep(0)
            self._started = time.monotonic()
