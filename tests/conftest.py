"""Hypothesis draws new examples at every run, but the same ones in CI: what lands there must not depend on
luck.
"""

import asyncio
import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings

from service.transport.loop import CompletionLoop

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
