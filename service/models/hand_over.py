"""The cost of a hand-over: a wake of another thread and its answer, while the event loop computes."""

import sys
import threading
import time
from functools import lru_cache
from queue import SimpleQueue
from statistics import median

_ROUNDS = 50


@lru_cache(maxsize=1)
def hand_over_s() -> float:
    """Return the seconds from a wake to the answer, measured once a process.

    That is a round trip between two threads that do nothing else, and the interpreter's switch interval, for
    which the thread that is woken waits while the event loop computes.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    answered: SimpleQueue[None] = SimpleQueue()

    def answer() -> None:
        while asked.get():
            answered.put(None)

    thread = threading.Thread(target=answer, name="hand-over")
    thread.start()
    try:
        return sys.getswitchinterval() + median(_round_trip_s(asked, answered) for _ in range(_ROUNDS))
    finally:
        asked.put(False)
        thread.join()


def _round_trip_s(asked: "SimpleQueue[bool]", answered: "SimpleQueue[None]") -> float:
    started = time.perf_counter()
    asked.put(True)
    answered.get()
    return time.perf_counter() - started
