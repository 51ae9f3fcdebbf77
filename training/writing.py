"""Writes files whole: beside their place first, then renamed, so that no half file has a final name.

A full disk or a folder that cannot be written becomes one `WriteError`, which names the path, the reason, the
free space and what to do. It is no TrainingError: options and data are fine.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROBE = bytes(1 << 12)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_MEBIBYTE = 1 << 20


class WriteError(Exception):
    """A file or folder that cannot be written; the text says which, why, and what to do."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert errors of the operating system while a path is written.

    Raises:
        WriteError: The path cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _described(path, error) from error


@contextmanager
def replaced(path: Path, mark: str = "") -> Iterator[Path]:
    """Give the path of a new file beside `path`, which takes its place when the block ends without an error.

    Args:
        path: The file to write; its folder is made.
        mark: Part of the new file's name, different in processes that share a folder.

    Raises:
        WriteError: It cannot be written. `path` is as it was, and nothing is left beside it.
    """
    beside = path.with_name(f".{path.name}{mark}.part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            beside.replace(path)
        except BaseException:
            with suppress(OSError):  # the error that is raised says what is wrong
                beside.unlink(missing_ok=True)
            raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, or leave it as it was.

    Raises:
        WriteError: It cannot be written. Nothing is left beside it.
    """
    with replaced(path) as beside, beside.open("wb") as file:
        file.write(data)
        # Some file systems find out at this point alone that they are full.
        file.flush()
        os.fsync(file.fileno())


def reserve(path: Path, size: int) -> None:
    """Write a file of zero bytes, so that its disk space is taken before it is mapped into memory.

    Writing to a mapped file for which the disk has no space kills the process by a signal.
    """
    with path.open("wb") as file:
        for start in range(0, size, _MEBIBYTE):
            file.write(bytes(min(_MEBIBYTE, size - start)))
        file.flush()
        os.fsync(file.fileno())


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder, or where it will be made; nothing is left there.

    Raises:
        WriteError: They cannot.
    """
    with disk_errors(folder), tempfile.TemporaryFile(dir=_nearest(folder)) as file:
        file.write(_PROBE)
        file.flush()


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(one for one in (path, *path.parents) if one.exists() or one == one.parent)


def _described(path: Path, error: OSError) -> WriteError:
    reason = error.strerror or str(error)
    try:
        free = f", {shutil.disk_usage(_nearest(path)).free / _MEBIBYTE:,.0f} MiB free there"
    except OSError:
        free = ""
    first = "free some space" if error.errno in _FULL else "let it be written"
    return WriteError(
        f"{path}: cannot be written: {reason}{free}: {first}, or name another folder "
        "(runs/ is made in the folder in which the command is started)"
    )
