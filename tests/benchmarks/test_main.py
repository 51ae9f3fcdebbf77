"""The command of the benchmarks: what is wrong is said before an hour of measuring."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import __main__ as benchmarks


def test_folder_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(benchmarks, "choose_cores", None)
    result = CliRunner().invoke(benchmarks.app, ["--out", str(tmp_path / "file" / "results")])
    assert result.exit_code == 2
    assert "--out" in result.output
    assert "cannot be written" in result.output
