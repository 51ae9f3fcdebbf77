"""Waiting in the asyncio client, and telling why a wait was cancelled."""

import asyncio
from contextlib import suppress


async def wait_until_set(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, at most `seconds`; return whether it is set."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def is_task_cancelled() -> bool:
    """Return whether the running task was cancelled.

    grpc.aio also raises CancelledError when only the call was cancelled.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
