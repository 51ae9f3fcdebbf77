"""Repositories of tests, each stopped at the end."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.models.repository import Repository
from service.observability.metrics import Metrics
from tests import tiny
from tests.service.builders import load_repository

Load = Callable[..., Repository]


@pytest.fixture(scope="session")
def letters_and_moods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of letters and one of moods. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for seed in range(3):
        tiny.export_generator(folder, seed=seed)
    tiny.export_classifier(folder)
    return folder


@pytest.fixture
def folder(letters_and_moods: Path, tmp_path: Path) -> Path:
    """A repository of one's own."""
    return shutil.copytree(letters_and_moods, tmp_path / "repository")


@pytest.fixture
def stopped() -> Iterator[list[Repository]]:
    """Repositories to stop at the end."""
    repositories: list[Repository] = []
    yield repositories
    for repository in repositories:
        repository.stop()


@pytest.fixture
def load(stopped: list[Repository]) -> Load:
    """Load everything in a folder; in an async test, for the running event loop."""

    def loaded(folder: Path, metrics: Metrics | None = None, **changes: Any) -> Repository:
        stopped.append(load_repository(folder, metrics, **changes))
        return stopped[-1]

    return loaded
