"""Hidden folders in which a version is written before it is renamed.

Each process has its own. It is locked while its process lives, so that one that a killed process left behind
can be told from one in use, and is removed by the next export.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

SUFFIX = ".part"
# Machines that share a file system need not share its locks: what is younger is left alone.
OLD_S = 3600.0


@contextmanager
def hidden_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new, empty folder in `parent` whose name begins with a dot; it is removed in the end.

    Folders that other processes left behind are removed, too. `parent` is made; it is removed again where it
    was made here and stays empty.

    Args:
        parent: the folder in which it is made.
        prefix: of its name, for people who look.

    Raises:
        OSError: it cannot be made.
    """
    made = _make_parents(parent)
    try:
        remove_abandoned(parent)
        folder, lock = _made(parent, prefix)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    finally:
        for one in made:
            with suppress(OSError):  # it holds something by now, perhaps of another process
                one.rmdir()


def remove_abandoned(parent: Path) -> None:
    """Remove the hidden folders of processes that have ended; where the file system has no locks, none."""
    for folder in parent.glob(f".*{SUFFIX}"):
        with suppress(OSError):  # another process is removing it, or it is not ours
            if folder.is_dir() and time() - folder.stat().st_mtime > OLD_S:
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _make_parents(parent: Path) -> list[Path]:
    """Make a folder and those above it; return those that were not there, the deepest first."""
    missing = [one for one in (parent, *parent.parents) if not one.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return missing


def _made(parent: Path, prefix: str) -> tuple[Path, int]:
    """Return a new locked folder, and the descriptor that holds its lock."""
    while True:
        folder = parent / f".{prefix}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        try:
            folder.mkdir()
        except FileNotFoundError:  # another process, which had made the parent, has removed it again
            parent.mkdir(parents=True, exist_ok=True)
            continue
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # a file system without locks: nobody removes the folder for another then
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder, lock
