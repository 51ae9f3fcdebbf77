"""Who still needs something that is to be taken away: counted, and awaited. Everything here lives in the
event loop's thread.
"""

import asyncio


class Uses:
    """Uses under way; a context counts one.

    with uses:
        ...
    """

    def __init__(self) -> None:
        self.count = 0
        self._ended = asyncio.Event()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self) -> None:
        """One more, until `end`."""
        self.count += 1

    def end(self) -> None:
        """One less."""
        self.count -= 1
        assert self.count >= 0, "more uses ended than begun"
        if not self.count:
            self._ended.set()

    async def none(self) -> None:
        """Wait until there is no use under way."""
        while self.count:
            self._ended.clear()
            await self._ended.wait()
