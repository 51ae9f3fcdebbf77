"""Reads one file of a version's folder as bytes: regular, of bounded size, inside the repository."""

import os
import stat
from pathlib import Path


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
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve(strict=True)):
            raise FileRefused("a link that leads out of the repository")
        # O_NONBLOCK: opening a pipe would otherwise wait for a writer.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileRefused(f"a {_kind(found.st_mode)}")
            if found.st_size > max_bytes:
                raise FileRefused(f"{found.st_size} bytes, more than {max_bytes}")
            # One byte more than allowed shows a file that grew after fstat.
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise FileRefused(str(error)) from error
    if len(data) > max_bytes:
        raise FileRefused(f"more than {max_bytes} bytes")
    return data


def _kind(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "pipe or device"
