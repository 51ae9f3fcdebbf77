"""Files of a version's folder, read whole and once: regular ones, of bounded size, that lie in the
repository.
"""

import os
import stat
from pathlib import Path


class FileRefused(Exception):
    """A file is not read; the text says what was found in its place."""


def read_inside(path: Path, root: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: of the file; it may lead over links, as mounted volumes have them.
        root: folder that it must really lie in.
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is none.
        FileRefused: it lies elsewhere, is larger, is no regular file or cannot be read.
    """
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root.resolve(strict=True)):
            raise FileRefused("a link that leads out of the repository")
        # Opening a pipe would wait for a writer.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileRefused(f"a {_kind(found.st_mode)}")
            if found.st_size > most:
                raise FileRefused(f"{found.st_size} bytes, more than {most}")
            # It may grow while it is read.
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise FileRefused(str(error)) from error
    if len(data) > most:
        raise FileRefused(f"more than {most} bytes")
    return data


def _kind(mode: int) -> str:
    return "folder" if stat.S_ISDIR(mode) else "pipe or device"
