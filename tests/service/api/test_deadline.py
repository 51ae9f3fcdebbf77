"""service.api.deadline."""

import time

from service.api.deadline import deadline_of


class Context:
    """A call with so many seconds left."""

    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining


def test_call_without_a_deadline_has_none() -> None:
    assert deadline_of(Context(None)) is None


def test_deadline_is_on_the_monotonic_clock() -> None:
    before = time.monotonic()
    deadline = deadline_of(Context(5.0))
    assert deadline is not None
    assert before + 5.0 <= deadline <= time.monotonic() + 5.0


def test_passed_deadline_lies_in_the_past() -> None:
    deadline = deadline_of(Context(-1.0))
    assert deadline is not None
    assert deadline < time.monotonic()
