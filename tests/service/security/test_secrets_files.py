"""service.security.secrets_files, with a clock that the test moves."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.security.secrets_files import CHECK_EVERY_S, ReloadedFiles


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self) -> None:
        self.now += CHECK_EVERY_S


def numbers(contents: list[bytes]) -> list[int]:
    return [int(one) for one in contents]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / "a", tmp_path / "b"]
    for number, path in enumerate(found):
        path.write_text(str(number))
    return found


def replace(path: Path, text: str) -> None:
    """Replace a file atomically, so that no reader sees half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_value_is_made_of_all_files(paths: list[Path], clock: Clock) -> None:
    assert ReloadedFiles("SETTING", paths, numbers, clock).value() == [0, 1]


def test_replaced_file_is_read_again_after_a_second_and_not_before(paths: list[Path], clock: Clock) -> None:
    watched = ReloadedFiles("SETTING", paths, numbers, clock)
    replace(paths[1], "7")
    assert watched.value() == [0, 1]
    clock.pass_by()
    assert watched.value() == [0, 7]


def test_file_as_it_was_is_not_read_again(paths: list[Path], clock: Clock) -> None:
    watched = ReloadedFiles("SETTING", paths, numbers, clock)
    first = watched.value()
    clock.pass_by()
    assert watched.value() is first


@pytest.mark.parametrize("is_gone", [True, False], ids=["no file", "wrong file"])
def test_broken_file_leaves_the_old_value_and_is_told_once(
    paths: list[Path], clock: Clock, is_gone: bool
) -> None:
    watched = ReloadedFiles("SETTING", paths, numbers, clock)
    if is_gone:
        paths[0].unlink()
    else:
        replace(paths[0], "many")
    with capture_logs() as logs:
        for _ in range(3):
            clock.pass_by()
            assert watched.value() == [0, 1]
    assert [(one["event"], one["setting"]) for one in logs] == [
        ("new file refused, the old one stays in force", "SETTING")
    ]
    replace(paths[0], "5")
    clock.pass_by()
    assert watched.value() == [5, 1]


def test_wrong_file_at_the_start_is_raised(paths: list[Path], clock: Clock) -> None:
    paths[0].write_text("many")
    with pytest.raises(ValueError, match="many"):
        ReloadedFiles("SETTING", paths, numbers, clock)
    paths[0].unlink()
    with pytest.raises(FileNotFoundError):
        ReloadedFiles("SETTING", paths, numbers, clock)
