"""Writes a file whole or not at all: whoever interrupts it leaves the earlier file, or none."""

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside the path, then rename it.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
