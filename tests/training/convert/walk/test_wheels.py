"""Packages are fetched by hash, and tests are skipped for want of an index alone."""

from pathlib import Path

import pytest

from tests.training.convert.walk.wheels import fetched, unpacked, wheels


def test_every_line_is_read() -> None:
    assert sorted(wheels()) == ["Resemblyzer", "silero-vad"]


def test_missing_index_skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(pytest.skip.Exception, match="no package index is reachable"):
        fetched(wheels()["silero-vad"], tmp_path)


def test_other_hash_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands for the index: the wheel in it has another hash than the pinned one."""
    wheel = wheels()["silero-vad"]
    links = tmp_path / "links"
    links.mkdir()
    (links / wheel.file).write_bytes(b"another file")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        fetched(wheel, tmp_path)


def test_unpacked_package_has_its_network(tmp_path: Path) -> None:
    assert (unpacked("silero-vad", tmp_path) / "silero_vad/data/silero_vad.onnx").is_file()
