"""Runs work that must be done in a thread, however long there is none to be had."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

_log = structlog.get_logger(__name__)

_PAUSE_S = 1.0  # before another thread is asked for


async def run_in_thread(work: Callable[[], None]) -> None:
    """Run a function in a thread of its own; where none can be started, try again after a pause.

    Raises:
        Exception: what the function raises.
    """
    while True:
        # Not the event loop's executor, which keeps work that it could not start a thread for, and might run
        # it a second time.
        executor = ThreadPoolExecutor(1)
        try:
            running = asyncio.get_running_loop().run_in_executor(executor, work)
        except RuntimeError as error:
            _log.warning("no thread can be started, which is tried again", reason=str(error))
        else:
            await running
            return
        finally:
            executor.shutdown(wait=False)
        await asyncio.sleep(_PAUSE_S)
