"""What many tests of the service share: exported models, and how hypothesis runs."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import tiny

# Examples are timed by the whole suite, not one by one: the machine is shared.
settings.register_profile("service", max_examples=50, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("service")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three models, one a task: letters, moods, prices. To be read, not changed."""
    folder = tmp_path_factory.mktemp("models")
    tiny.export_all(folder)
    return folder
