"""Runs the program in a child process, so that its end by a signal is said in a sentence and leaves nothing.

It imports the standard library alone: the child is made before anything starts threads.
"""

import ctypes
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1
_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def go_on_in_child(what: str) -> None:
    """Return in a child process; this one waits for it, and ends with its exit status.

    The child's temporary files lie in a folder that goes with it. A signal to this process is passed on, and
    one that kills it ends the child.

    Args:
        what: what the child does, as the subject of a sentence.
    """
    folder = tempfile.mkdtemp(prefix="seqserve-")
    with _blocked():
        parent, child = os.getpid(), os.fork()
        if child == 0:
            _begin(parent, folder)
            return
        for number in _FORWARDED:
            signal.signal(number, _passed_to(child))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    shutil.rmtree(folder, ignore_errors=True)
    if status < 0:
        name = signal.Signals(-status).name
        print(
            f"refused: {what} ended by {name}; onnxruntime ends at some graphs instead of failing, and the "
            "system where memory is short: export the network in another way, or on a larger machine",
            file=sys.stderr,
        )
    sys.stdout.flush()
    os._exit(1 if status < 0 else status)


def _begin(parent: int, folder: str) -> None:
    """Prepare the child."""
    # At a terminal Ctrl-C would reach it twice: by itself, and passed on.
    os.setpgrp()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the call
        os._exit(1)
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None


def _passed_to(child: int) -> "signal._HANDLER":
    def handle(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    return handle


@contextmanager
def _blocked() -> Iterator[None]:
    """Hold back the signals that are passed on until there is whom to pass them to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
