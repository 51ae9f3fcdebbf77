"""A path with the name of a .keras file that is no regular file."""

import os
from pathlib import Path

import pytest

from training.convert.foreign import Refused
from training.convert.keras import read_keras


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "network.keras"
    os.mkfifo(path)
    with pytest.raises(Refused, match=r"expected a \.keras file, found no file"):
        read_keras(path)
