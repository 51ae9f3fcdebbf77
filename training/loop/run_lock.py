"""Keeps two runs out of one folder: the checkpoint of one would be exported by the other.

The lock is one of the operating system on a file in the folder; it is freed when its process ends, however
that ends.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.errors import TrainingError
from training.loop import parallel
from training.writing import disk_errors

LOCK_FILE = "lock"
_HELD = frozenset({errno.EAGAIN, errno.EACCES})


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Hold the lock of a run's folder while the block runs; of several processes of one run, the leader does.

    Yields:
        What the user should know, where the file system has no locks; else "".

    Raises:
        TrainingError: another run holds it, in every process of this one.
        WriteError: the folder cannot be written.
    """
    held: list[int] = []

    def acquire() -> str:
        lock, note = _acquired(folder)
        held.append(lock)
        return note

    try:
        yield parallel.share().from_leader(acquire)
    finally:
        for lock in held:
            os.close(lock)


def _acquired(folder: Path) -> tuple[int, str]:
    """Return the descriptor that holds the lock, and a note where there is none to hold."""
    path = folder / LOCK_FILE
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        note = _lock(lock, folder)
        with disk_errors(path):
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock, note


def _lock(lock: int, folder: Path) -> str:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise TrainingError(
                f"{folder}: expected no other run of this name, found one{_holder(lock)}: "
                "give this one a --name of its own, or wait until that one has ended"
            ) from error
        return (
            f"{folder}: cannot be locked here ({error.strerror}): "
            "see to it that no other run of this name is started while this one trains"
        )
    return ""


def _holder(lock: int) -> str:
    """Return the process that wrote its number into the file, for a message; "" where there is none yet."""
    with suppress(OSError, ValueError):
        return f", process {int(os.pread(lock, 32, 0))}"
    return ""
