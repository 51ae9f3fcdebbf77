"""Tests of the options of the command `forecast`."""

from pathlib import Path

import pytest

from tests.training.conftest import Command


@pytest.mark.parametrize("option", ["--horizon", "--window", "--period"])
def test_forecast_refuses_zero_rows(
    command: Command, capsys: pytest.CaptureFixture[str], prices_file: Path, option: str
) -> None:
    assert command("forecast", prices_file, "--target", "close", option, 0) == 2
    error = capsys.readouterr().err
    assert option in error
    assert "greater than or equal to 1" in error
    assert not Path("runs").exists()
