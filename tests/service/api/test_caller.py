"""service.api.caller."""

import math
import threading
import time

import pytest

from service.api.caller import MAX_DEADLINE_S, caller_of, subject


class Context:
    """A call with so many seconds left, over a connection of its own."""

    def __init__(self, remaining: float | None, peer: str = "ipv4:127.0.0.1:1234") -> None:
        self._remaining = remaining
        self._peer = peer

    def time_remaining(self) -> float | None:
        return self._remaining

    def peer(self) -> str:
        return self._peer


def test_call_without_a_deadline_has_none() -> None:
    assert caller_of(Context(None)).deadline is None


def test_deadline_is_on_the_monotonic_clock() -> None:
    before = time.monotonic()
    deadline = caller_of(Context(5.0)).deadline
    assert deadline is not None
    assert before + 5.0 <= deadline <= time.monotonic() + 5.0


def test_passed_deadline_lies_in_the_past() -> None:
    deadline = caller_of(Context(-1.0)).deadline
    assert deadline is not None
    assert deadline < time.monotonic()


@pytest.mark.parametrize("remaining", [99_999_999 * 3600.0, 1e300, math.inf])
def test_deadline_beyond_all_clocks_is_cut_to_one_that_a_thread_can_wait_for(remaining: float) -> None:
    deadline = caller_of(Context(remaining)).deadline
    assert deadline is not None
    left = deadline - time.monotonic()
    assert left <= MAX_DEADLINE_S
    woken = threading.Event()
    woken.set()
    assert woken.wait(left)


def test_callers_without_names_share_by_connection() -> None:
    assert caller_of(Context(None)).client == "ipv4:127.0.0.1:1234"


def test_callers_with_a_name_share_by_it() -> None:
    token = subject.set("team-a")
    try:
        assert caller_of(Context(None)).client == "team-a"
    finally:
        subject.reset(token)


@pytest.mark.parametrize(
    ("peer", "scope"),
    [
        ("ipv4:127.0.0.1:1234", "ipv4:127.0.0.1"),
        ("ipv6:%5B::1%5D:1234", "ipv6:%5B::1%5D"),
        ("unix:", "unix"),
    ],
)
def test_callers_without_names_share_cached_prompts_by_host(peer: str, scope: str) -> None:
    assert caller_of(Context(None, peer)).cache_scope == scope


def test_callers_with_a_name_share_cached_prompts_by_it() -> None:
    token = subject.set("team-a")
    try:
        assert caller_of(Context(None)).cache_scope == "team-a"
    finally:
        subject.reset(token)
