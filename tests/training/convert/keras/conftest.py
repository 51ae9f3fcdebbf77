"""Gives the tests Keras itself, which builds and runs the originals."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras on PyTorch; importing it takes seconds, and the backend must be chosen before."""
    os.environ["KERAS_BACKEND"] = "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras as imported  # noqa: PLC0415

    return imported


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Save a model as a `.keras` file, and return its path."""

    def save(model: Any) -> Path:
        path = tmp_path / "model.keras"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        return path

    return save
