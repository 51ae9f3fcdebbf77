"""A call's deadline on the engine's clock."""

import time
from typing import Any


def deadline_of(context: Any) -> float | None:
    """Monotonic seconds at which the caller gives up; None where it set no deadline."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
