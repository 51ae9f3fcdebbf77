"""Turns of large messages: one is parsed at a time, and after it the event loop is free for as long.

The parser of protobuf holds the interpreter, so that a thread would help nobody.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from service.tasks.lines import Lines

# A message of so many bytes is parsed within a millisecond, whatever it is made of.
MIN_LARGE_BYTES = 8 << 10


class LargeMessages:
    """Parses messages, clients in turn. Used in the event loop alone."""

    def __init__(self) -> None:
        self._is_busy = False
        self._waiting: Lines[asyncio.Future[None]] = Lines()

    async def parse(self, client: str, parse: Callable[[bytes], Any], data: bytes) -> Any:
        """Return what a function makes of a message, once it is its client's turn.

        Raises:
            InvalidArgument: from the function.
            CancelledError: the caller is gone.
        """
        if self._is_busy:
            await self._turn(client)
        self._is_busy = True
        started = time.perf_counter()
        try:
            return parse(data)
        finally:
            pause_s = time.perf_counter() - started
            asyncio.get_running_loop().call_later(pause_s, self._pass_on)

    async def _turn(self, client: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(client, turn)
        try:
            await turn
        except BaseException:
            self._waiting.remove(client, turn)
            if turn.done() and not turn.cancelled():  # the turn came together with the cancellation
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while (turn := self._waiting.pop()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._is_busy = False
