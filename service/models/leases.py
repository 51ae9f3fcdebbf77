"""Leases: who still needs a version that is to be taken away. The event loop's thread alone uses them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from service.errors import Withdrawn

_WITHDRAWN = (
    "newer versions have replaced the one that answers; go on from the text so far, or from a state, "
    "with another call"
)
_Task = asyncio.Task[Any]


class Leases:
    """The requests that a version has taken and not yet answered, and the streams that keep it open.

    As a context it is one lease of the current task:

        with leases:
            ...

    Whoever leaves the context after `withdraw` does so with `Withdrawn`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._all_returned = asyncio.Event()
        self._holders: Counter[_Task | None] = Counter()
        self._withdrawn: set[_Task] = set()

    def __enter__(self) -> None:
        """Take one lease for the current task."""
        self.acquire(asyncio.current_task())

    def __exit__(self, *_: object) -> None:
        """Return it; raise Withdrawn if it was withdrawn."""
        self.release(asyncio.current_task())

    @contextmanager
    def held_by(self, task: _Task | None) -> Iterator[None]:
        """Take one lease for a task, which any task may return."""
        self.acquire(task)
        try:
            yield
        finally:
            self.release(task)

    def acquire(self, holder: _Task | None = None) -> None:
        """Take one lease, until `release`.

        Args:
            holder: the task that `withdraw` cancels; None: nobody's.
        """
        self.count += 1
        self._holders[holder] += 1

    def release(self, holder: _Task | None = None) -> None:
        """Return one lease.

        Raises:
            Withdrawn: the current task held it, and was cancelled by `withdraw`; it is so no longer.
        """
        self.count -= 1
        assert self.count >= 0, "more leases returned than taken"
        self._holders[holder] -= 1
        if not self._holders[holder]:
            del self._holders[holder]
        if not self.count:
            self._all_returned.set()
        if holder in self._withdrawn and holder is asyncio.current_task():
            self._withdrawn.discard(holder)
            holder.uncancel()
            raise Withdrawn(_WITHDRAWN)

    def withdraw(self) -> int:
        """Cancel the tasks that hold leases, and return how many there are."""
        holders = {holder for holder in self._holders if holder is not None and not holder.done()}
        for holder in holders - self._withdrawn:
            holder.cancel()
        self._withdrawn |= holders
        return len(holders)

    async def wait_until_free(self) -> None:
        """Wait until there is no lease."""
        while self.count:
            self._all_returned.clear()
            await self._all_returned.wait()
