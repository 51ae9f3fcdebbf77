"""Hypothesis draws new examples at every run, but the same ones in CI: what lands there must not depend on
luck.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from service.transport.loop import CompletionLoop
from tests.scheduling import Scheduling, place

settings.register_profile(
    "seqserve",
    max_examples=50,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("seqserve")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests in the event loop of the server, which servers in a test's own process need."""
    return {"completions": CompletionLoop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put first what takes longest, where several workers share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Let workers that take whole files take them as `tests.scheduling` says."""
    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None
