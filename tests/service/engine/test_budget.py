"""Tests of a turn's budget: on a clock that moves on at each look, a turn's bookkeeping ends in time whatever
waits, expires or is cancelled, and later turns do the rest.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.inbox import MAX_ROWS
from service.engine.limits import BUDGET_S
from service.engine.request import Row
from service.engine.scheduler import MAX_PREEMPTIONS, MIN_TURNS
from service.errors import DeadlineExceeded, Overloaded
from service.runtime import Chunk
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeBound,
    FakeCell,
    assert_answered,
    assert_same,
    by,
    expected,
    generation_of,
    kinds_of,
    last_of,
    mixed,
    reader_of,
    received,
)

# Far more rows than a turn's bookkeeping can handle at LOOK_S.
MANY = 400
LOOK_S = BUDGET_S / 20
# Looks at the clock after the last that was within the budget: those of one message, of one row that expires,
# and of one admission or preemption.
MAX_LOOKS = 2 * MAX_ROWS + 10


class BusyBench(Bench):
    """A bench whose clock moves on by `look_s` at each look, and that measures the bookkeeping of each turn.

    Attributes:
        bookkeeping_s: seconds from the start of each turn that ran a tick to its run.
        turns: how many turns have run.
    """

    def __init__(
        self, slots: int = 3, look_s: float = LOOK_S, max_waiting: int = 10_000, **others: Any
    ) -> None:
        self.look_s = look_s
        self.bookkeeping_s: list[float] = []
        self.turns = 0
        self._started = 0.0
        super().__init__(slots, max_waiting=max_waiting, cell=_TimedCell(self), clock=self._look, **others)

    def _look(self) -> float:
        self.now += self.look_s
        return self.now

    def ran(self) -> None:
        self.bookkeeping_s.append(self.now - self._started)

    def tick(self) -> bool:
        self._started = self.now
        self.turns += 1
        return super().tick()

    def assert_in_budget(self) -> None:
        """Raise AssertionError unless some turns have been measured and none has overstepped its budget."""
        assert self.bookkeeping_s
        assert max(self.bookkeeping_s) <= BUDGET_S + MAX_LOOKS * self.look_s


class _TimedCell(FakeCell):
    def __init__(self, bench: BusyBench) -> None:
        super().__init__()
        self.bench = bench

    def bind(self, chunk: Chunk) -> FakeBound:
        return _TimedBound(self, chunk)


class _TimedBound(FakeBound):
    def run(self) -> None:
        assert isinstance(self.cell, _TimedCell)
        self.cell.bench.ran()
        super().run()


def busy() -> tuple[BusyBench, Row]:
    """Return a bench and a stream that holds a slot."""
    bench, stream = BusyBench(), generation_of([1], 3000, wants_logprobs=False)
    bench.submit(stream)
    bench.tick()
    return bench, stream


def test_arrivals_are_taken_in_over_several_turns() -> None:
    bench, stream = busy()
    rows = [last_of([1, 2]) for _ in range(MANY)]
    for row in rows:
        bench.submit(row)
    bench.tick()
    assert len(bench.engine.inbox) > MANY // 2
    bench.tick_until_idle()
    bench.assert_in_budget()
    assert_answered(*rows, stream)
    bench.assert_empty()


def test_free_slots_are_filled_over_several_turns() -> None:
    bench, rows = BusyBench(slots=100), [generation_of([1], 40) for _ in range(100)]
    bench.submit(*rows)
    active: list[int] = []
    while len(active) < 2 or active[-1] != active[-2]:
        bench.tick()
        active.append(bench.active)
    assert 0 < active[0] < 25
    assert active[-1] == 100
    bench.tick_until_idle()
    bench.assert_in_budget()
    assert_answered(*rows)
    bench.assert_empty()


@pytest.mark.parametrize("form", ["one by one", "in one request"])
def test_cancelled_rows_leave_over_several_turns(form: str) -> None:
    bench, stream = busy()
    rows = [last_of(LONG) for _ in range(MANY)]
    bench.submit(*rows)
    bench.tick()
    if form == "one by one":
        for row in rows:
            bench.cancel(row)
    else:
        bench.cancel(*rows)
    bench.tick()
    assert not all(row.is_over for row in rows)
    while not all(row.is_over for row in rows):
        bench.tick()
    bench.assert_in_budget()
    assert all(received(row) == [] for row in rows)
    bench.tick_until_idle()
    assert_answered(stream)
    bench.assert_empty()


def test_rows_out_of_time_are_told_over_several_turns() -> None:
    bench, stream = busy()
    rows = [last_of(LONG, deadline=100.0) for _ in range(MANY)]
    bench.submit(*rows)
    for _ in range(MANY):
        bench.tick()
        if len(bench.engine.inbox) == 0:
            break
    bench.now = 100.0
    waiting = [row for row in rows if not row.is_over]
    bench.tick()
    assert 0 < sum(row.is_over for row in waiting) < len(waiting) // 2
    while not all(row.is_over for row in waiting):
        bench.tick()
    bench.assert_in_budget()
    assert all(kinds_of(row) == [DeadlineExceeded] for row in waiting)
    bench.tick_until_idle()
    assert_answered(stream)
    bench.assert_empty()


def test_suspended_rows_out_of_time_are_told_although_nothing_runs() -> None:
    """Such an engine is idle: it says that it wants its next turn at once."""
    bench = BusyBench(slots=MANY, look_s=0.0)
    rows = [generation_of([1], 50, deadline=100.0, max_backlog=1) for _ in range(MANY)]
    bench.submit(*rows)
    bench.tick_until_idle()
    bench.now, bench.look_s = 100.0, LOOK_S
    turns = 0
    while bench.engine.idle_s() is not None:
        assert bench.engine.idle_s() == 0.0
        bench.tick()
        turns += 1
    assert turns > 10
    assert all(kinds_of(row)[-1] is DeadlineExceeded for row in rows)
    bench.assert_empty()


def test_evictions_are_carried_out_over_several_turns() -> None:
    bench, stream = busy()
    many = [last_of(LONG, client="many") for _ in range(MANY)]
    bench.group._max_waiting = MANY
    bench.submit(*many)
    few = [last_of([1], client=f"few {number % 9}") for number in range(MANY // 4)]
    for row in few:
        bench.submit(row)
    bench.tick_until_idle()
    bench.assert_in_budget()
    evicted = [row for row in many if kinds_of(row) == [Overloaded]]
    assert len(evicted) <= len(few)
    assert_answered(stream, *few, *[row for row in many if row not in evicted])
    bench.assert_empty()


def test_rows_are_evicted_by_a_large_request_over_several_turns() -> None:
    bench, stream = busy()
    many = [last_of(LONG, client="many") for _ in range(MANY)]
    bench.group._max_waiting = MANY
    bench.submit(*many)
    few = by("few", *[last_of([1]) for _ in range(MANY // 2 - 1)])
    bench.submit(*few)
    bench.tick_until_idle()
    bench.assert_in_budget()
    assert_answered(stream, *few, *[row for row in many if kinds_of(row) != [Overloaded]])
    bench.assert_empty()


def test_many_clients_that_come_at_once_are_bounded_in_preemptions_a_turn() -> None:
    bench = BusyBench(slots=20)
    streams = by("many", *[generation_of([1], 300) for _ in range(20)])
    bench.submit(*streams)
    for _ in range(30 + MIN_TURNS):
        bench.tick()
    few = [generation_of([1], 3, client=str(number)) for number in range(50)]
    for row in few:
        bench.submit(row)
    bench.bookkeeping_s.clear()
    bench.tick_until_idle()
    bench.assert_in_budget()
    assert bench.metrics.paused.value > 0
    assert_answered(*few, *streams)


def test_preemptions_end_with_the_budget() -> None:
    """Each admits a row, whose prompt is hashed: a turn goes on with the next one only within the budget."""
    bench = BusyBench(slots=20, look_s=0.0)
    streams = by("many", *[generation_of([1], 300) for _ in range(20)])
    bench.submit(*streams)
    for _ in range(MIN_TURNS + 1):
        bench.tick()
    for number in range(MAX_PREEMPTIONS):
        bench.submit(generation_of([1], 30, client=str(number)))
    bench.engine._drain_inbox(bench.now)
    bench.look_s = 2 * BUDGET_S
    preempted: list[float] = []
    for _ in range(MAX_PREEMPTIONS):
        before = bench.metrics.paused.value
        bench.tick()
        preempted.append(bench.metrics.paused.value - before)
    assert preempted == [1] * MAX_PREEMPTIONS


def test_states_of_prompts_are_cached_as_far_as_the_budget_goes() -> None:
    """Prompts that end together would each be hashed: those beyond the budget are not cached."""
    bench = BusyBench(slots=50, prompt_cache_bytes=1 << 20, look_s=0.0)
    rows = [generation_of([kind % 7, kind // 7, *LONG[:20]], 2) for kind in range(40)]
    bench.submit(*rows)
    bench.tick()
    bench.look_s = LOOK_S
    bench.tick_until_idle()
    assert 0 < len(bench.engine._active.prompts) < 40
    assert_answered(*rows)


def test_state_of_a_prompt_is_cached_however_slow_the_machine_is() -> None:
    bench = BusyBench(prompt_cache_bytes=1 << 20, look_s=2 * BUDGET_S)
    bench.submit(generation_of(LONG[:20], 2))
    bench.tick_until_idle()
    assert len(bench.engine._active.prompts) == 1


@pytest.mark.parametrize("looks", [1, 2, 100])
def test_every_turn_gets_on_however_slow_the_machine_is(looks: int) -> None:
    """A budget that is used up by the first look keeps no message, deadline or row waiting for ever."""
    bench, rows = BusyBench(look_s=looks * BUDGET_S), mixed()
    late = last_of(LONG, deadline=-1.0)
    bench.submit(*rows, late)
    assert bench.tick_until_idle() < 200
    assert_answered(*rows)
    assert kinds_of(late) == [DeadlineExceeded]
    bench.assert_empty()


scripts = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 40)),
        st.tuples(st.just("cancel"), st.integers(0, 999)),
        st.tuples(st.just("wait"), st.integers(1, 3)),
        st.tuples(st.just("tick"), st.integers(1, 3)),
    ),
    max_size=30,
)


@given(st.integers(1, 5), st.sampled_from([BUDGET_S / 100, LOOK_S, BUDGET_S / 3, 2 * BUDGET_S]), scripts)
def test_nothing_is_lost_between_turns(slots: int, look_s: float, script: list[tuple[str, int]]) -> None:
    bench, accepted, cancelled = BusyBench(slots, look_s, max_waiting=60), list[Row](), set[Row]()
    for operation, number in script:
        if operation == "submit":
            rows = [
                generation_of([1], 3, deadline=bench.now + 2.0, client=str(number % 3), max_backlog=2)
                if index % 2
                else last_of(LONG[: index + 1], client=str(number % 3))
                for index in range(number)
            ]
            try:
                bench.submit(*rows)
            except Overloaded:
                continue
            accepted += rows
        elif operation == "cancel":
            leaving = [row for row in accepted[number % 60 :: 7] if not row.is_over]
            bench.cancel(*leaving)
            cancelled.update(leaving)
        elif operation == "wait":
            bench.now += number
        else:
            for _ in range(number):
                bench.tick()
    while not all(row.is_over for row in accepted):
        bench.tick_until_idle()
        for row in accepted:
            reader_of(row).take()
    bench.tick_until_idle()
    for row in accepted:
        outputs, right = received(row), expected(row)
        if outputs and isinstance(outputs[-1], DeadlineExceeded | Overloaded):
            outputs = outputs[:-1]
            assert len(outputs) < len(right)
        elif row not in cancelled:
            assert len(outputs) == len(right)
        assert_same(outputs, right[: len(outputs)])
        assert not (outputs and isinstance(outputs[0], np.ndarray) and len(outputs) > 1)
    bench.assert_empty()
