"""Ctrl-C while the program is being imported, which takes seconds and would end with a trace."""

import os
import signal
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130


def end_at_interrupt() -> None:
    """Have an interrupt end the process at once, with one line; there is nothing to close yet."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_at_interrupt() -> None:
    """Have an interrupt raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    os.write(2, b"interrupted; nothing had begun\n")
    os._exit(INTERRUPTED)
