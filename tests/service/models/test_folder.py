"""service.models.folder: which entries of the repository are versions, refused, or ignored."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from service.contract import spec
from service.models.folder import Folder, Listing, discover
from service.models.table import Entry, Status, VersionTable, first_of
from service.observability.metrics import Metrics
from tests.service.builders import refuse_to_list

CANNOT_LIST = "expected a folder that can be listed, found Permission denied"


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).mkdir(parents=True)
    return folder


# Versions.


def test_versions_are_found_newest_first_by_number(tmp_path: Path) -> None:
    found = discover(make(tmp_path, "b/2", "b/10", "b/1", "a/7"))
    assert found == Listing({"a": [7], "b": [10, 2, 1]})


@pytest.mark.parametrize(
    "name", ["0", "01", "-1", "1.0", "v1", "latest", "²", "\u0661", "1 ", "4294967296", "9" * 200]
)
def test_folder_of_no_version_is_ignored_and_named(tmp_path: Path, name: str) -> None:
    found = discover(make(tmp_path, f"model/{name}", "model/3"))
    reason = "expected a version of 1..4294967295 without leading zeros"
    assert found == Listing({"model": [3]}, ignored={ascii(f"model/{name}"): reason})


def test_entries_without_a_version_are_ignored_and_named(tmp_path: Path) -> None:
    make(tmp_path, ".git/1", "model/1", "model/.2.part", "lost+found", "empty")
    (tmp_path / "README.md").touch()
    (tmp_path / "model" / "2").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    none_inside = "no folder of a version inside"
    assert discover(tmp_path) == Listing(
        {"model": [1]},
        ignored={
            "'.git'": "hidden",
            "'README.md'": "not a folder",
            "'astray'": "a link that leads nowhere",
            "'empty'": none_inside,
            "'loop'": "a link that leads nowhere",
            "'lost+found'": none_inside,
            "'model/.2.part'": "hidden",
            "'model/2'": "not a folder",
            "'pipe'": "not a folder",
        },
    )


def test_version_that_cannot_be_looked_at_is_left_to_its_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is in a folder that may be listed and not be entered."""
    make(tmp_path, "bad/1", "good/1")
    is_dir = Path.is_dir

    def look(path: Path) -> bool:
        if path.parent == tmp_path / "bad":
            raise PermissionError(errno.EACCES, "denied")
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", look)
    assert discover(tmp_path) == Listing({"bad": [1], "good": [1]})


def test_folder_that_vanishes_during_the_scan_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "gone/1", "good/1")
    is_dir = Path.is_dir

    def look(path: Path) -> bool:
        found = is_dir(path)
        if path.name == "gone":
            shutil.rmtree(path)
        return found

    monkeypatch.setattr(Path, "is_dir", look)
    assert discover(tmp_path).versions == {"good": [1]}


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_repository_that_is_no_folder_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind == "a file":
        (tmp_path / "models").touch()
    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        discover(tmp_path / "models")


# Refused entries.


def test_folders_that_cannot_be_listed_hide_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ended the start of the server, and every later look at the repository."""
    make(tmp_path, "bad/1", "good/1", "lost+found")
    refuse_to_list(monkeypatch, tmp_path / "bad", tmp_path / "lost+found")
    assert discover(tmp_path) == Listing(
        {"good": [1]}, {("bad", 0): CANNOT_LIST}, {"'lost+found'": CANNOT_LIST}, {"bad"}
    )


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP])
def test_folder_that_its_volume_cannot_list_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    make(tmp_path, "bad/1", "good/1")
    iterdir = Path.iterdir

    def listed(path: Path) -> "list[Path]":
        if path.name == "bad":
            raise OSError(code, os.strerror(code))
        return list(iterdir(path))

    monkeypatch.setattr(Path, "iterdir", listed)
    found = discover(tmp_path)
    assert found.versions == {"good": [1]}
    assert found.refused == {("bad", 0): f"expected a folder that can be listed, found {os.strerror(code)}"}


@given(st.sets(st.binary(min_size=1, max_size=100).filter(lambda name: not {0, 47} & {*name}), max_size=5))
def test_any_other_name_is_shown_in_ascii_and_as_no_model_s_name(names: set[bytes]) -> None:
    folders = {name for name in names if not name.startswith(b".")}
    with tempfile.TemporaryDirectory() as folder:
        for name in folders:
            os.makedirs(os.path.join(os.fsencode(folder), name, b"2"))
        found = discover(Path(folder))
    shown = [name for name, version in found.refused if version == 2]
    odd = [name for name in folders if not spec.is_name(os.fsdecode(name))]
    assert len(shown) == len(odd)
    assert all(name.isascii() and name.isprintable() and not spec.is_name(name) for name in shown)


# Their account.


class _Change:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path, VersionTable(), Metrics(CollectorRegistry()))
    made.on_change = _Change()
    return made


def test_refused_entries_are_failed_and_logged_once_until_they_are_gone(
    tmp_path: Path, folder: Folder
) -> None:
    make(tmp_path, "my model/2", "lost+found")
    with capture_logs() as logs:
        folder.list()
        folder.list()
    (line, other) = sorted(logs, key=lambda one: one["log_level"])
    assert (line["event"], line["model"], line["check"]) == ("model refused", "'my model'", "folder")
    assert other["entries"] == "'lost+found' (no folder of a version inside)"
    [entry] = folder._table.entries()
    assert (entry.name, entry.version, entry.status) == ("'my model'", 2, Status.FAILED)
    assert entry.message.startswith("folder: name: expected 1..64 letters")
    assert isinstance(folder.on_change, _Change)
    assert folder.on_change.count == 1
    shutil.rmtree(tmp_path / "my model")
    folder.list()
    assert folder._table.entries() == []
    assert folder.on_change.count == 2


def test_what_serves_is_not_shown_as_failed(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "letters/1")
    refuse_to_list(monkeypatch, tmp_path / "letters")
    monkeypatch.setattr(folder._table, "serving", lambda _: [Entry("letters", 1, Status.READY)])
    folder.list()
    assert folder._table.entries() == []


def test_repository_that_is_gone_later_holds_nothing(tmp_path: Path, folder: Folder) -> None:
    tmp_path.rmdir()
    assert folder.list() == Listing()


def test_reason_names_ignored_entries(tmp_path: Path, folder: Folder) -> None:
    """As where the repository's setting names the folder of a model."""
    make(tmp_path, "1")
    folder.list()
    assert folder.why_nothing_serves() == (
        "no model was found there, and ignored are '1' (no folder of a version inside)"
    )


def test_a_thousand_entries_are_named_in_a_bounded_text(tmp_path: Path, folder: Folder) -> None:
    """The names of all would exceed what gRPC allows of a status."""
    make(tmp_path, *(f"{number} !/1" for number in range(1000)))
    folder.list()
    assert len(folder.why_nothing_serves()) < 4000
    assert first_of([str(number) for number in range(22)]).endswith(", 19 and 2 more")
