"""Signals that stop the server, from the first statement of the program to its end.

It imports next to nothing, since the program imports it first.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

# SIGHUP: the terminal has been closed. Files of keys, tokens and certificates are reloaded without a signal.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What comes within so many seconds after a signal is the same request: some tools send to the process and
# to its group.
SAME_S = 0.1


class StopSignals:
    """Holds the signals to stop until the event loop takes them over.

    SIGHUP is left alone where it was ignored at the start, as under nohup.
    """

    def __init__(self) -> None:
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._numbers = STOP_SIGNALS[:2] if is_ignored else STOP_SIGNALS
        self._held: list[int] = []
        self._held_at = 0.0

    @property
    def have_come(self) -> bool:
        """True once a signal has been held."""
        return bool(self._held)

    def hold(self) -> None:
        """Keep signals from now on; a second request ends the process at once, with status 128 + number."""
        for number in self._numbers:
            signal.signal(number, self._hold)

    def hand_to(self, loop: "AbstractEventLoop", stop: Callable[[int], None]) -> None:
        """Have the event loop call `stop` with the number of each signal, now for one that is held."""
        for number in self._numbers:
            loop.add_signal_handler(number, stop, number)
        for held in self._held:
            stop(held)
        self._held.clear()

    def ignore(self, loop: "AbstractEventLoop") -> None:
        """Ignore the signals: the process is ending already, and its status tells how."""
        for number in self._numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _hold(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self._held:
            self._held.append(number)
            self._held_at = now
        elif number != signal.SIGHUP and now - self._held_at >= SAME_S:
            os._exit(128 + number)
