"""Finds out what a file is before it is read, and opens it."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from seqserve.tables.errors import TableError

UTF8 = "utf-8"
STDIN = "-"
MOST_BYTES = 1 << 28
"""The most that is read from a file or a stream at once, in bytes; a series that fits into a request is far
smaller."""

_HEAD_BYTES = 16
_PACKED = {
    b"\x1f\x8b": "gzip-compressed data: unpack it first, with gzip -d",
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of Excel: save the sheet as CSV",
    b"BZh": "bzip2-compressed data: unpack it first, with bzip2 -d",
    b"\xfd7zXZ": "xz-compressed data: unpack it first, with xz -d",
    b"\x28\xb5\x2f\xfd": "zstd-compressed data: unpack it first, with zstd -d",
    b"PAR1": "a Parquet file: convert it first",
    b"%PDF-": "a PDF document: expected plain text",
}
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Bytes to be read as text.

    Attributes:
        name: What messages call it.
        open: Opens it from its beginning, as often as it is called.
        encoding: Name of the text's encoding.
    """

    name: str
    open: Callable[[], BinaryIO]
    encoding: str = UTF8

    @classmethod
    def of_file(cls, path: Path, encoding: str = UTF8) -> "Origin":
        """Return the origin that reads a file anew each time it is opened."""
        return cls(str(path), lambda: path.open("rb"), encoding)

    @classmethod
    def of_bytes(cls, name: str, data: bytes, encoding: str = UTF8) -> "Origin":
        """Return the origin of bytes that are in memory."""
        return cls(name, lambda: BytesIO(data), encoding)


def check_rereadable(path: Path) -> bytes:
    """Check that a file is a regular one, so that it gives the same each time it is read.

    Returns:
        Its first bytes.

    Raises:
        TableError: It cannot be read, or is no regular file.
    """
    if str(path) == STDIN:
        raise TableError(
            "standard input: expected a regular file, since it is read more than once, found a pipe: "
            "save its data to a file first"
        )
    try:
        mode = path.stat().st_mode
        # Opening a pipe or a device may wait, or take what is in it.
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise TableError(
                f"{path}: expected a regular file, since it is read more than once, found {_kind(mode)}: "
                "save its data to a file first"
            )
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error


def read_once(path: Path, name: str = "") -> bytes:
    """Read a regular file or a pipe to its end.

    Args:
        path: The file.
        name: What messages call it; "": its path.

    Raises:
        TableError: It cannot be read, is a device or a socket, is too large, or holds packed data.
    """
    name = name or str(path)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISDIR(mode)):
            raise TableError(f"{name}: expected a file or a pipe, found {_kind(mode)}")
        with path.open("rb") as file:
            return read_stream(name, file)
    except OSError as error:
        raise TableError(f"{name}: cannot be read: {error.strerror}") from error


def read_stream(name: str, stream: BinaryIO) -> bytes:
    """Read a stream to its end.

    Raises:
        TableError: It is too large, or holds packed data.
        OSError: It cannot be read.
    """
    data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise TableError(f"{name}: expected at most {MOST_BYTES:,} bytes, found more")
    check_is_plain(name, data)
    return data


def check_is_plain(name: str, head: bytes) -> None:
    """Check that the first bytes of a file are not those of packed data.

    Raises:
        TableError: They are; the text says of what, and what to do.
    """
    for signature, found in _PACKED.items():
        if head.startswith(signature):
            raise TableError(f"{name}: expected plain text, found {found}")


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), f"a file of mode {mode:o}")


def errno_text(error: OSError) -> str:
    """Return the operating system's text for an error, without the file's name."""
    return error.strerror or os.strerror(error.errno or 0)
