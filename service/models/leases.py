"""Leases: who still needs a version that is to be taken away. The event loop's thread alone uses them."""

import asyncio


class Leases:
    """The requests that a version has taken and not yet answered, and the streams that keep it open.

    As a context it is one lease:

        with leases:
            ...
    """

    def __init__(self) -> None:
        self.count = 0
        self._all_returned = asyncio.Event()

    def __enter__(self) -> None:
        """Take one lease."""
        self.acquire()

    def __exit__(self, *_: object) -> None:
        """Return it."""
        self.release()

    def acquire(self) -> None:
        """Take one lease, until `release`."""
        self.count += 1

    def release(self) -> None:
        """Return one lease."""
        self.count -= 1
        assert self.count >= 0, "more leases returned than taken"
        if not self.count:
            self._all_returned.set()

    async def wait_until_free(self) -> None:
        """Wait until there is no lease."""
        while self.count:
            self._all_returned.clear()
            await self._all_returned.wait()
