"""Bounds the time of a preparation in the server: what passed its trial may still hang here.

The preparation runs in a daemon thread of its own. Past the limit it is cancelled, which ends a run of the
graph before its next node; a thread that hangs in one node cannot be ended, and is left behind with its core.
"""

import threading
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from pathlib import Path

from service.errors import ModelRefused
from service.models.choices import PREPARING, Choices
from service.models.interface import Accept, accept_any
from service.models.preparing import Preparation, Prepared
from service.models.tried import Tried


class BoundedPreparation:
    """Prepares versions one at a time; `stop` may be called in any thread.

    Args:
        choices: what a preparation depends on.
        seconds: time limit.
    """

    def __init__(self, choices: Choices, seconds: float) -> None:
        self._choices = choices
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: tuple[Preparation, Future[Prepared]] | None = None
        self._is_stopped = False

    def run(self, folder: Path, tried: Tried, accept: Accept = accept_any) -> Prepared:
        """Prepare a version that has passed its trial; arguments and errors are `Preparation.run`'s.

        Raises:
            ModelRefused: also where it takes too long, or no thread can be started.
        """
        work, outcome = Preparation(self._choices), Future[Prepared]()
        with self._lock:
            if self._is_stopped:
                raise self._refusal("a server that is being stopped")
            self._running = work, outcome
        thread = threading.Thread(
            target=_fulfil, args=(outcome, work, folder, tried, accept), name=PREPARING, daemon=True
        )
        try:
            _start(thread)
            return outcome.result(self._seconds)
        except TimeoutError as error:
            work.cancel()
            raise self._refusal("no end within that time") from error
        except CancelledError as error:
            raise self._refusal("a server that is being stopped") from error
        finally:
            with self._lock:
                self._running = None

    def stop(self) -> None:
        """End what is under way without waiting for it, and refuse everything later."""
        with self._lock:
            self._is_stopped = True
            if self._running is not None:
                work, outcome = self._running
                outcome.cancel()
                work.cancel()

    def _refusal(self, found: str) -> ModelRefused:
        return ModelRefused("warm-up", f"a version that is warmed up within {self._seconds:g} s", found)


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError as error:
        raise ModelRefused("warm-up", "a thread to prepare the version in", str(error)) from error


def _fulfil(
    outcome: "Future[Prepared]", work: Preparation, folder: Path, tried: Tried, accept: Accept
) -> None:
    """Set a future to the result or the error of a preparation, unless it was cancelled meanwhile."""
    with suppress(InvalidStateError):
        try:
            outcome.set_result(work.run(folder, tried, accept))
        except InvalidStateError:
            raise
        except BaseException as error:
            outcome.set_exception(error)
