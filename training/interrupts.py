"""Ends the program by a signal: Ctrl-C while it is being imported, and termination while it has begun."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
TERMINATED = 143


def end_at_interrupt() -> None:
    """Have an interrupt end the process at once, with one line; there is nothing to close yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_at_interrupt() -> None:
    """Have an interrupt raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def exit_at_termination() -> Iterator[None]:
    """Have SIGTERM raise SystemExit, so that what was begun is removed, as with Ctrl-C."""
    is_default = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    os.write(2, b"interrupted; nothing had begun\n")
    os._exit(INTERRUPTED)
