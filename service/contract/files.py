"""Reads one file of a version's folder as bytes: regular, of bounded size, inside the repository."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 1 << 20


class FileRefused(Exception):
    """The file cannot be read safely; the text says what was found instead."""


def read_inside(path: Path, root: Path, max_bytes: int) -> bytes:
    """Read a whole regular file.

    Args:
        path: file to read; symbolic links are followed, since mounted volumes use them.
        root: folder that must contain the resolved path.
        max_bytes: size limit.

    Raises:
        FileNotFoundError: no such file.
        FileRefused: the file resolves outside `root`, is too large, is not a regular file or is unreadable.
    """
    with _opened(path, root, max_bytes) as (file, size):
        # One byte more than its size shows a file that grew after fstat.
        data = file.read(size + 1)
        if len(data) > size:
            raise FileRefused(f"more than {size} bytes, its size when it was opened")
        return data


def hash_inside(path: Path, root: Path, max_bytes: int) -> str:
    """Return the sha256 of a regular file, read piece by piece; arguments and errors are `read_inside`'s."""
    with _opened(path, root, max_bytes) as (file, size):
        found, left = hashlib.sha256(), size + 1
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            found.update(piece)
            left -= len(piece)
        return found.hexdigest()


@contextmanager
def _opened(path: Path, root: Path, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file and yield it with its size; raise what `read_inside` raises."""
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve(strict=True)):
            raise FileRefused("a link that leads out of the repository")
        # Opening a socket fails with another reason, and opening a device may do something.
        _size_of(os.stat(real), max_bytes)
        # O_NONBLOCK: opening a pipe that has taken the file's place would otherwise wait for a writer.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = _size_of(os.fstat(descriptor), max_bytes)
            # The descriptor is closed below: open() leaves that of a folder to its caller.
            with open(descriptor, "rb", closefd=False) as file:
                yield file, size
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise FileRefused(str(error)) from error


def _size_of(found: os.stat_result, max_bytes: int) -> int:
    if not stat.S_ISREG(found.st_mode):
        raise FileRefused(f"a {_kind(found.st_mode)}")
    if found.st_size > max_bytes:
        raise FileRefused(f"{found.st_size} bytes, more than {max_bytes}")
    return found.st_size


def _kind(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
