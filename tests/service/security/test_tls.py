"""service.security.tls: which certificates gRPC is told of. Handshakes are tested in tests/integration."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.security.secrets_files import ReloadedFiles
from service.security.tls import changes_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (path := tmp_path / "certificate").write_text("first")
    return path


def reloaded(path: Path) -> ReloadedFiles[list[str]]:
    """Files that are looked at anew at each call."""
    times: Iterator[int] = iter(range(0, 1_000, 10))
    return ReloadedFiles(
        "SETTING", [path], lambda contents: [one.decode() for one in contents], lambda: next(times)
    )


def test_unchanged_value_is_not_given_again(path: Path) -> None:
    files = reloaded(path)
    change = changes_of(files, files.value())
    assert [change() for _ in range(3)] == [None] * 3


def test_changed_value_is_given_once(path: Path) -> None:
    files = reloaded(path)
    change = changes_of(files, files.value())
    path.write_text("the second")
    assert [change() for _ in range(3)] == [["the second"], None, None]


def test_change_between_first_value_and_first_call_is_given(path: Path) -> None:
    files = reloaded(path)
    first = files.value()
    path.write_text("the second")
    files.value()
    assert changes_of(files, first)() == ["the second"]
