"""Drivers call an engine's turns: in a thread, or in the event loop where a turn costs less than a hand-over.

A driver is the one owner of its engine. It delivers what a turn brings into the event loop, in one call a
turn, and it ends all rows where a turn raises.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Literal

import structlog

from service.engine.core import EngineCore, Turn
from service.engine.idle import IdleCall
from service.engine.streaming import deliver

_log = structlog.get_logger(__name__)

Kind = Literal["thread", "loop"]
OnFailure = Callable[[EngineCore], None]

# Turns should hold the event loop no longer: processor time, which other processes do not add to.
MAX_HOLD_S = 0.001
# Seconds until a thread is asked for again where none could be started.
RETRY_S = 10.0
# Weight of a turn in the mean of the last ones.
_SMOOTHING = 0.05


def _run_turn(engine: EngineCore, on_failure: OnFailure) -> Turn:
    """Run one turn; a fault of the engine ends all of its rows, then and later."""
    if engine.facts.has_failed:
        return Turn(False, engine.fail())
    try:
        return engine.run_turn()
    except Exception as error:
        # A turn broke off half-way: no row can be trusted.
        _log.error("engine stopped", model=engine.name, exc_info=error)
        outputs = engine.fail()
        on_failure(engine)
        return Turn(False, outputs)


class Signal:
    """Wakes one waiting thread: cheaper than an Event, whose lock costs more than a small model's tick.

    A call that finds the thread awake costs one assignment.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()
        self._is_set = False
        self._is_asleep = False

    def set(self) -> None:
        """Wake the waiting thread, or keep it from falling asleep."""
        self._is_set = True
        if self._is_asleep:
            self._is_asleep = False
            self._queue.put(None)

    def keep_awake(self) -> bool:
        """Keep the thread from falling asleep; return whether it sleeps, so that `set` has to wake it."""
        self._is_set = True
        return self._is_asleep

    def clear(self) -> None:
        """Forget earlier calls of `set`: what they announced is about to be looked at."""
        self._is_set = False

    def wait(self, timeout_s: float | None) -> None:
        """Wait until `set` since `clear`, or until the time is up; now and then it returns early."""
        self._is_asleep = True
        # A `set` before that line has put nothing into the queue; one after it does, at worst once too often.
        if not self._is_set:
            with suppress(Empty):
                self._queue.get(timeout=timeout_s)
        self._is_asleep = False


class ThreadDriver:
    """Runs the turns in a thread and posts their outputs to the event loop.

    Args:
        engine: its own from `start` on.
        loop: event loop of the callers.
        on_failure: called in the thread after the engine has failed.
    """

    kind: Kind = "thread"

    def __init__(self, engine: EngineCore, loop: asyncio.AbstractEventLoop, on_failure: OnFailure) -> None:
        self._engine = engine
        self._loop = loop
        self._on_failure = on_failure
        self._signal = Signal()
        self._waker = IdleCall(loop, self._signal.set)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"engine-{engine.name}", daemon=True)
        engine.inbox.wake = self._wake

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the current turn."""
        self._is_stopping = True
        self._signal.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _wake(self) -> None:
        """Have the thread look at the inbox: at once where it is awake, else when the event loop is idle."""
        if self._signal.keep_awake():
            self._waker.request()

    def _run(self) -> None:
        while not self._is_stopping:
            self._signal.clear()
            turn = _run_turn(self._engine, self._on_failure)
            if turn.outputs:
                self._loop.call_soon_threadsafe(deliver, turn.outputs)
            is_busy = turn.is_busy
            del turn  # a thread that sleeps keeps no row that is over
            if not is_busy:
                self._signal.wait(self._engine.idle_s())


class LoopDriver:
    """Runs the turns in the event loop, until they hold it too long; then a thread takes over.

    Args:
        engine: its own from `start` on.
        loop: event loop of the callers.
        on_failure: called in the event loop after the engine has failed.
    """

    def __init__(self, engine: EngineCore, loop: asyncio.AbstractEventLoop, on_failure: OnFailure) -> None:
        self._engine = engine
        self._loop = loop
        self._on_failure = on_failure
        self._waker = IdleCall(loop, self._start_turns)
        self._is_scheduled = False
        self._is_stopped = False
        self._mean_hold_s = 0.0
        self._retry_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._successor: ThreadDriver | None = None
        engine.inbox.wake = self._waker.request

    @property
    def kind(self) -> Kind:
        """The place where the turns run: the event loop, or a thread once it has taken over."""
        return "loop" if self._successor is None else "thread"

    def start(self) -> None:
        """Begin: the first message schedules a turn."""

    def stop(self) -> None:
        """End after the current turn."""
        self._is_stopped = True
        self._waker = IdleCall(self._loop, lambda: None)  # the old one refers to this driver
        if self._successor is not None:
            self._successor.stop()

    def _start_turns(self) -> None:
        """Run a turn, unless the one before has scheduled it."""
        if not self._is_scheduled:
            self._run()

    def _run(self) -> None:
        self._is_scheduled = False
        if self._is_stopped or self._successor is not None:
            return
        started = time.thread_time()
        turn = _run_turn(self._engine, self._on_failure)
        deliver(turn.outputs)
        self._mean_hold_s += _SMOOTHING * (time.thread_time() - started - self._mean_hold_s)
        if self._mean_hold_s > MAX_HOLD_S and time.monotonic() >= self._retry_at:
            self._hand_to_thread()
        if self._successor is not None:
            return
        if turn.is_busy:
            self._is_scheduled = True
            self._loop.call_soon(self._run, context=self._waker.context)
        else:
            self._wake_at_deadline()

    def _wake_at_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (idle_s := self._engine.idle_s()) is not None:
            self._timer = self._loop.call_later(idle_s, self._start_turns, context=self._waker.context)

    def _hand_to_thread(self) -> None:
        """Let a thread take over; where none can be started, go on in the event loop."""
        successor = ThreadDriver(self._engine, self._loop, self._on_failure)
        try:
            successor.start()
        except RuntimeError as error:
            _log.warning("engine stays in the event loop", model=self._engine.name, exc_info=error)
            self._retry_at = time.monotonic() + RETRY_S
            self._engine.inbox.wake = self._waker.request
            self._waker.request()  # a message that came meanwhile has woken nobody
            return
        _log.warning("engine moved to a thread: its turns hold the event loop", model=self._engine.name)
        self._successor = successor
        if self._is_stopped:  # another thread has stopped this driver meanwhile
            successor.stop()


Driver = ThreadDriver | LoopDriver
