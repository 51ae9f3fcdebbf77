"""service.contract.files: what is no regular file is refused by its kind, and leaves no descriptor open."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from service.contract.files import FileRefused, hash_inside, read_inside

MAX_BYTES = 100


@pytest.mark.parametrize("take", [read_inside, hash_inside])
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe, socket or device"),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), "a pipe, socket or device"),
        (lambda path: path.symlink_to("/dev/null"), "a link that leads out of the repository"),
        (lambda path: path.write_bytes(b"x" * 101), "101 bytes, more than 100"),
    ],
    ids=["folder", "pipe", "socket", "link", "large"],
)
def test_what_cannot_be_read_is_refused_by_its_kind(
    tmp_path: Path,
    take: Callable[[Path, Path, int], object],
    make: Callable[[Path], object],
    kind: str,
) -> None:
    path = tmp_path / "file"
    make(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(FileRefused, match=kind):
            take(path, tmp_path, MAX_BYTES)
    assert len(os.listdir("/proc/self/fd")) == before


def test_file_as_large_as_allowed_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * MAX_BYTES)
    assert read_inside(tmp_path / "file", tmp_path, MAX_BYTES) == b"x" * MAX_BYTES


def test_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_inside(tmp_path / "file", tmp_path, MAX_BYTES)
