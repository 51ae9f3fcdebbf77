"""Turns of large messages: one is parsed at a time, and after it the event loop is free for as long.

The parser of protobuf holds the interpreter, so that a thread would help nobody.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from service.tasks.lines import ClientTurns

# A message of so many bytes is parsed within a millisecond, whatever it is made of.
MIN_LARGE_BYTES = 8 << 10


class LargeMessages:
    """Parses messages, clients in turn. Used in the event loop alone."""

    def __init__(self) -> None:
        self._turns: ClientTurns[None] = ClientTurns([None])

    async def parse(self, client: str, parse: Callable[[bytes], Any], data: bytes) -> Any:
        """Return what a function makes of a message, once it is its client's turn.

        Raises:
            InvalidArgument: from the function.
            CancelledError: the caller is gone.
        """
        await self._turns.take(client)
        started = time.perf_counter()
        try:
            return parse(data)
        finally:
            pause_s = time.perf_counter() - started
            asyncio.get_running_loop().call_later(pause_s, self._turns.pass_on, None)
