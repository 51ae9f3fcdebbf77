"""Versions that are written at once all land, each whole and under a number of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from service.contract import spec
from training.export import hidden, version_folder
from training.export.hidden import hidden_folder
from training.export.version_folder import next_version, write_version
from training.writing import WriteError

ROOT = Path(__file__).parents[3]
STOCK = (ROOT / "exported" / "stock" / "2" / "model.json").read_text()
# Imports neither torch nor onnx, so that many processes start at once.
WRITER = """
import sys
from pathlib import Path
from tests.training.export.test_version_folder import described
from training.export.version_folder import write_version
print("ready", flush=True)
sys.stdin.readline()
for index in range(int(sys.argv[3])):
    write_version(Path(sys.argv[1]), described(f"{sys.argv[2]} {index}"))
"""
KILLED = """
import sys
from pathlib import Path
from training.export.hidden import hidden_folder
with hidden_folder(Path(sys.argv[1]), "1") as folder:
    (folder / "model.onnx").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def described(mark: str) -> version_folder.Describe:
    """A version whose files say which export it is, and which number they were written for."""
    model = spec.parse_spec(STOCK)

    def describe(number: int) -> tuple[spec.ModelSpec, Mapping[str, bytes]]:
        files = {f"part-{index}": f"{mark}, version {number}".encode() for index in range(5)}
        return model.model_copy(update={"version": number}), files

    return describe


def contents_of(folder: Path) -> tuple[str, ...]:
    """What the files of a version say, once each."""
    assert json.loads((folder / "model.json").read_text())["version"] == int(folder.name)
    return tuple({(folder / f"part-{index}").read_text() for index in range(5)})


def start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def check_all_landed(parent: Path, marks: set[str]) -> None:
    folders = sorted(parent.iterdir(), key=lambda folder: int(folder.name))
    assert [folder.name for folder in folders] == [str(number + 1) for number in range(len(marks))]
    found = {contents_of(folder) for folder in folders}
    assert {text.rpartition(", version ")[0] for (text,) in found} == marks
    assert all(contents_of(folder)[0].endswith(f", version {folder.name}") for folder in folders)


def test_versions_of_many_processes_all_land(tmp_path: Path) -> None:
    parent, each = tmp_path / "models" / "mine", 20
    writers = [start(WRITER, parent, name, each) for name in "abcd"]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0] * len(writers)
    check_all_landed(parent, {f"{name} {index}" for name in "abcd" for index in range(each)})


def test_versions_of_many_threads_all_land(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            tuple(pool.map(lambda n: write_version(tmp_path / "mine", described(f"{n}")), range(40)))
    finally:
        sys.setswitchinterval(interval)
    check_all_landed(tmp_path / "mine", {f"{n}" for n in range(40)})


def test_two_exports_of_one_number_become_that_and_the_next(tmp_path: Path) -> None:
    """Both have asked for the next number before either is written."""
    asked = Barrier(2)
    numbers: dict[str, list[int]] = {"a": [], "b": []}

    def export(mark: str) -> Path:
        def describe(number: int) -> tuple[spec.ModelSpec, Mapping[str, bytes]]:
            numbers[mark].append(number)
            if len(numbers[mark]) == 1:
                asked.wait()
            return described(mark)(number)

        return write_version(tmp_path / "mine", describe)

    with ThreadPoolExecutor(2) as pool:
        folders = set(pool.map(export, "ab"))
    assert folders == {tmp_path / "mine" / "1", tmp_path / "mine" / "2"}
    assert sorted(numbers.values()) == [[1], [1, 2]]
    check_all_landed(tmp_path / "mine", {"a", "b"})


def test_failed_export_leaves_the_folder_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had made the model's folder, into which another export wrote meanwhile."""
    parent = tmp_path / "mine"
    write = version_folder.write_files

    def fail(*arguments: object) -> None:
        monkeypatch.setattr(version_folder, "write_files", write)
        write_version(parent, described("other"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(version_folder, "write_files", fail)
    with pytest.raises(WriteError, match="mine/1: cannot be written: No space left on device"):
        write_version(parent, described("own"))
    check_all_landed(parent, {"other"})


def test_folder_that_a_killed_process_left_is_removed_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start(KILLED, tmp_path / "mine")
    assert killed.stdout
    assert killed.stdout.readline() == "writing\n"
    [left] = (tmp_path / "mine").iterdir()
    monkeypatch.setattr(hidden, "OLD_S", -1.0)
    write_version(tmp_path / "mine", described("first"))
    assert left.exists(), "its process lives and holds the lock"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    monkeypatch.undo()
    write_version(tmp_path / "mine", described("second"))
    assert left.exists(), "it is young: perhaps another machine, whose locks are its own, is writing it"
    monkeypatch.setattr(hidden, "OLD_S", -1.0)
    write_version(tmp_path / "mine", described("third"))
    assert sorted(one.name for one in (tmp_path / "mine").iterdir()) == ["1", "2", "3"]


def test_hidden_folder_takes_the_folders_made_for_it_along(tmp_path: Path) -> None:
    with hidden_folder(tmp_path / "a" / "b", "1") as folder:
        assert folder.parent == tmp_path / "a" / "b"
        assert folder.name.startswith(f".1-{os.getpid()}-")
    assert list(tmp_path.iterdir()) == []
    assert next_version(tmp_path / "a" / "b") == 1
