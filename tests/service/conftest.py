"""What many tests of the service share: exported models."""

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three models, one a task: letters, moods, prices. To be read, not changed."""
    folder = tmp_path_factory.mktemp("models")
    tiny.export_all(folder)
    return folder
