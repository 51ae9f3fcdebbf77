"""service.tasks.inline_time."""

import math
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks.inline_time import BURST_S, SHARE, InlineTime

# Pauses between requests and what a run takes, in thousandths of a burst: whole numbers add up exactly.
THOUSANDTH_S = BURST_S / 1000
PAUSES = st.integers(0, 5000)
RUNS = st.integers(0, 10_000)


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def move(self, thousandths: float) -> None:
        self.now += thousandths * THOUSANDTH_S


def runs_if_left(inline_time: InlineTime, clock: Clock, thousandths: float) -> bool:
    """Run work that takes so long if there is time for it; return whether it ran."""
    if not inline_time.is_left():
        return False
    inline_time.run(clock.move, thousandths)
    return True


def fail(clock: Clock) -> NoReturn:
    clock.move(2001)
    raise ZeroDivisionError


def test_result_is_that_of_the_function() -> None:
    assert InlineTime().run(divmod, 7, 2) == (3, 1)


def test_work_waits_while_the_bucket_is_empty() -> None:
    clock = Clock()
    inline_time = InlineTime(clock)
    assert runs_if_left(inline_time, clock, 2000)
    assert not inline_time.is_left()
    clock.move(1000 / SHARE)
    assert inline_time.is_left()


def test_run_that_raises_takes_its_time_from_the_bucket() -> None:
    clock = Clock()
    inline_time = InlineTime(clock)
    with pytest.raises(ZeroDivisionError):
        inline_time.run(fail, clock)
    assert not inline_time.is_left()


def test_run_longer_than_what_is_left_is_paid_back() -> None:
    clock = Clock()
    inline_time = InlineTime(clock)
    assert runs_if_left(inline_time, clock, 10_000)
    clock.move(9_000 / SHARE - 10_000 - 1)  # it fills up while the work runs, too
    assert not inline_time.is_left()
    clock.move(2)
    assert inline_time.is_left()


def test_time_without_work_saves_no_more_than_a_burst() -> None:
    clock = Clock()
    inline_time = InlineTime(clock)
    clock.move(1_000_000)
    ran = 0
    while runs_if_left(inline_time, clock, 100):
        ran += 1
    assert ran == math.ceil(1000 / (100 - SHARE * 100))


@given(st.lists(st.tuples(PAUSES, RUNS), max_size=60))
def test_work_takes_at_most_its_share_of_any_time(requests: list[tuple[int, int]]) -> None:
    """Between any two moments: its share of the time, a burst, and what the longest run takes."""
    clock = Clock()
    inline_time = InlineTime(clock)
    ran: list[tuple[float, float]] = []  # begin and end
    for pause, run in requests:
        clock.move(pause)
        began = clock.now
        if runs_if_left(inline_time, clock, run):
            ran.append((began, clock.now))
    for first, (began, _) in enumerate(ran):
        total = longest = 0.0
        for start, end in ran[first:]:
            total, longest = total + end - start, max(longest, end - start)
            assert total <= SHARE * (end - began) + BURST_S + longest + 1e-9


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 0.99)), max_size=60))
def test_work_within_its_share_never_waits(requests: list[tuple[int, float]]) -> None:
    """A run of less than the share of the pause before it, and of a burst, finds time."""
    clock = Clock()
    inline_time = InlineTime(clock)
    for pause, part in requests:
        clock.move(pause)
        assert runs_if_left(inline_time, clock, part * min(SHARE * pause, 1000))
