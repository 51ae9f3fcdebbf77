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
        self._all_returned = asyncio.Event()
        self._holders: Counter[_Task] = Counter()
        self._withdrawn: set[_Task] = set()

    @property
    def count(self) -> int:
        """Number of leases."""
        return self._holders.total()

    def __enter__(self) -> None:
        """Take one lease for the current task."""
        self._holders[_current_task()] += 1

    def __exit__(self, *_: object) -> None:
        """Return it; raise Withdrawn if it was withdrawn."""
        self._release(_current_task())

    @contextmanager
    def held_by(self, task: _Task) -> Iterator[None]:
        """Take one lease for a task, which any task may return."""
        self._holders[task] += 1
        try:
            yield
        finally:
            self._release(task)

    def _release(self, holder: _Task) -> None:
        """Return one lease.

        Raises:
            Withdrawn: the current task held it, and was cancelled by `withdraw`; it is so no longer.
        """
        assert self._holders[holder], "more leases returned than taken"
        self._holders[holder] -= 1
        if not self._holders[holder]:
            del self._holders[holder]
        if not self._holders:
            self._all_returned.set()
        if holder in self._withdrawn and holder is asyncio.current_task():
            self._withdrawn.discard(holder)
            holder.uncancel()
            raise Withdrawn(_WITHDRAWN)

    def withdraw(self) -> int:
        """Cancel the tasks that hold leases, and return how many there are."""
        holders = {holder for holder in self._holders if not holder.done()}
        for holder in holders - self._withdrawn:
            holder.cancel()
        self._withdrawn |= holders
        return len(holders)

    async def wait_until_free(self) -> None:
        """Wait until there is no lease."""
        while self._holders:
            self._all_returned.clear()
            await self._all_returned.wait()


def _current_task() -> _Task:
    task = asyncio.current_task()
    assert task is not None, "leases are taken in tasks"
    return task
