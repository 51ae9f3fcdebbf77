"""Files that are given to training: whole, readable twice, and unchanged up to the export."""

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import Command, random_walk, write_prices
from tests.training.letters import write_letters
from training.recipes import charlm, sentiment, stock

SMALL = ("--hidden", 8, "--epochs", 1, "--no-int8", "--name", "own")


def _pipe(path: Path, _: bytes) -> None:
    os.mkfifo(path)


def _device(path: Path, _: bytes) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path, _: bytes) -> None:
    path.mkdir()


def _nothing(path: Path, _: bytes) -> None:
    assert not path.exists()


def _gzip(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))


def _zip(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("own.csv", data)


UNFIT: list[tuple[Callable[[Path, bytes], None], str]] = [
    (
        _pipe,
        "expected a regular file, since it is read more than once, found a pipe: save its data to a file",
    ),
    (_device, "expected a regular file, since it is read more than once, found a device"),
    (_folder, "cannot be read: Is a directory"),
    (_nothing, "cannot be read: No such file or directory"),
    (_gzip, "expected plain text, found gzip-compressed data: unpack it first"),
    (_zip, "expected plain text, found a zip archive or a spreadsheet"),
]


@pytest.mark.parametrize(("make", "message"), UNFIT, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize(
    "options",
    [
        ("charlm", "--text", "own"),
        ("charlm", "--text", "fit.txt", "--more", "own"),
        ("sentiment", "--csv", "own"),
        ("stock", "--csv", "own"),
        ("compare", "letters", "letters", "--text", "own"),
        ("promote", "letters", "--to", "other", "--text", "own"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_read_twice_is_refused_before_anything_else(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    make: Callable[[Path, bytes], None],
    message: str,
) -> None:
    make(tmp_path / "own", text_file.read_bytes())
    (tmp_path / "fit.txt").write_bytes(text_file.read_bytes())
    if "letters" in options:
        folder = write_letters(tmp_path / "models", text_file)
        write_letters(tmp_path / "other", text_file)
        options = tuple(str(folder) if one == "letters" else one for one in options)
    assert command(*options) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: own: {message}")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_refused(command: Command, capsys: pytest.CaptureFixture[str], name: str) -> None:
    reader, writer = os.pipe()
    kept = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert command("charlm", "--text", name) == 2
    finally:
        os.dup2(kept, 0)
        for each in (kept, reader, writer):
            os.close(each)
    assert "found a pipe: save its data to a file first" in capsys.readouterr().err


def _arguments(recipe: str, folder: Path) -> tuple[Path, tuple[object, ...]]:
    """A small file for a recipe, and the options that train on it."""
    path = folder / "given"
    if recipe == "charlm":
        path.write_text("A wise man told a story.\n" * 80)
        return path, ("charlm", "--text", path, "--layers", 1, *SMALL)
    if recipe == "sentiment":
        path.write_text("text,label\n" + "".join(f"text {index},{index % 2}\n" for index in range(40)))
        return path, ("sentiment", "--csv", path, *SMALL)
    return write_prices(path, random_walk(120)), ("stock", "--csv", path, *SMALL)


READERS = {
    "charlm": (charlm, "read_corpus"),
    "sentiment": (sentiment, "split"),
    "stock": (stock, "read_series"),
}


@pytest.mark.parametrize("recipe", READERS)
def test_data_that_change_while_they_are_read_are_refused_before_training(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
) -> None:
    path, arguments = _arguments(recipe, tmp_path)
    module, name = READERS[recipe]
    _then(monkeypatch, module, name, lambda: path.write_bytes(path.read_bytes() + b"\n"))
    monkeypatch.setattr(module, "fit", None)
    assert command(*arguments) == 2
    assert "given: expected data that stay as they are, found them changed while they were read" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("recipe", READERS)
def test_data_that_change_during_training_are_not_exported(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recipe: str,
) -> None:
    path, arguments = _arguments(recipe, tmp_path)
    _then(monkeypatch, READERS[recipe][0], "evaluate", lambda: path.write_bytes(path.read_bytes() + b"\n"))
    assert command(*arguments) == 2
    assert "given: expected data that stay as they are, found them changed during training" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "exported").exists()


def _then(monkeypatch: pytest.MonkeyPatch, module: object, name: str, act: Callable[[], object]) -> None:
    """Act right after a function of a module has returned."""
    function = getattr(module, name)

    def replacement(*arguments: object) -> object:
        result = function(*arguments)
        act()
        return result

    monkeypatch.setattr(module, name, replacement)


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("", None, "own.txt: expected at least 1000 characters, found 0"),
        ("a" * 2000, None, "own.txt: expected two or more different characters, found 'a' alone"),
        ("ab" * 1000, "", "more.txt: expected text to train on, found none"),
    ],
)
def test_too_little_text_is_refused(
    command: Command,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    more: str | None,
    message: str,
) -> None:
    (tmp_path / "own.txt").write_text(text)
    options: tuple[str, ...] = ()
    if more is not None:
        (tmp_path / "more.txt").write_text(more)
        options = ("--more", "more.txt")
    assert command("charlm", "--text", "own.txt", *options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_dates_after_today_are_not_trained_on_unless_allowed(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_prices(tmp_path / "given", random_walk(120))
    days = np.datetime64("1962-01-01") + np.arange(120)
    header, *rows = path.read_text().splitlines()
    cells = [f"{day:%m/%d/%y},{row.partition(',')[2]}" for day, row in zip(days.tolist(), rows, strict=True)]
    path.write_text("\n".join([header, *cells]))
    arguments = ("stock", "--csv", path, *SMALL)
    assert command(*arguments) == 2
    assert "line 2: column date: expected dates up to today" in capsys.readouterr().err
    assert command(*arguments, "--allow-future-dates") == 0
    assert command("card", tmp_path / "exported" / "own" / "1", "--csv", path) == 0
