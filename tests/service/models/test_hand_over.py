"""service.models.hand_over."""

import threading
from collections.abc import Iterator

import pytest

from service.models.hand_over import hand_over_s


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    hand_over_s.cache_clear()
    yield
    hand_over_s.cache_clear()


def test_hand_over_takes_some_time_and_no_second() -> None:
    assert 0 < hand_over_s() < 1


def test_hand_over_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    hand_over_s()
    assert set(threading.enumerate()) <= before


def test_hand_over_is_measured_once() -> None:
    assert hand_over_s() == hand_over_s()
    assert hand_over_s.cache_info().misses == 1
