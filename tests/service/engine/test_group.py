"""Tests of service.engine.group on fake cells: who is refused, who is evicted, which engine gets what, and
that the callers' counters are exact once everything has ended.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.core import Active
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import BUDGET_S, Limits
from service.engine.prompt_cache import MIN_STEPS
from service.engine.request import Account, Row
from service.engine.sampling import Sampling
from service.engine.streaming import deliver
from service.errors import ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import (
    LONG,
    SHAPE,
    Bench,
    FakeCell,
    assert_answered,
    assert_counted_out,
    by,
    generation_of,
    kinds_of,
    last_of,
    mixed,
    received,
    submit_to,
)

PROMPT = [index % 7 for index in range(MIN_STEPS + 10)]


class Stopwatch:
    """A clock that moves on by itself at each look.

    Args:
        step_s: seconds a look.
    """

    def __init__(self, step_s: float) -> None:
        self.now = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self.now += self._step_s
        return self.now


# With this clock a turn handles one message, ends one row out of time and admits one row.
OVER_BUDGET_S = 2 * BUDGET_S


class Engines:
    """A group whose engines are driven by hand, one after the other."""

    def __init__(
        self,
        count: int = 2,
        max_waiting: int = 100,
        slots: int = 3,
        clock: Callable[[], float] = Stopwatch(0.0),
    ) -> None:
        limits = Limits(slots, 4, prompt_cache_bytes=1 << 20)
        self.cells = [FakeCell() for _ in range(count)]
        self.each = [
            Engine("fake", cell, SHAPE, limits, EngineMetrics(), clock, number)
            for number, cell in enumerate(self.cells)
        ]
        self.group = EngineGroup(self.each, max_waiting)

    def submit(self, *rows: Row) -> None:
        submit_to(self.group, list(rows))

    def tick(self) -> bool:
        are_busy = [self.tick_one(number) for number in range(len(self.each))]
        return any(are_busy)

    def tick_one(self, number: int) -> bool:
        turn = self.each[number].run_turn()
        self.each[number].check_integrity()
        deliver(turn.outputs)
        return turn.is_busy

    def finish(self) -> None:
        """Run turns until nothing is left; the counters must agree."""
        while self.tick():
            pass
        assert_counted_out(self.group)

    def fail(self, number: int) -> None:
        """Let one engine end as its driver ends it after a fault."""
        self.cells[number].is_faulty = True
        with pytest.raises(ZeroDivisionError):
            self.each[number].run_turn()
        deliver(self.each[number].fail())


def numbers_of(rows: list[Row]) -> list[int]:
    """Return which engine each row was given to."""
    return [row.engine for row in rows]


def waiting(group: EngineGroup) -> dict[str, int]:
    """Return how many rows of each client wait, by the callers' counters."""
    return {name: account.waiting for name, account in group._accounts.items() if account.waiting}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_goal_gets_its_own_answer(count: int) -> None:
    engines, rows = Engines(count), mixed()
    engines.submit(*rows)
    engines.finish()
    assert_answered(*rows)


def test_group_refuses_engines_that_are_not_numbered_in_order() -> None:
    engines = Engines(2)
    with pytest.raises(AssertionError):
        EngineGroup(engines.each[::-1], 10)


def test_slots_are_those_of_all_engines() -> None:
    assert Engines(3, slots=5).group.slots == 15


def test_active_rows_are_those_of_all_engines() -> None:
    engines = Engines(2)
    engines.submit(*[last_of(LONG) for _ in range(4)])
    engines.tick()
    assert engines.group.active == 4


# Which engine gets what.


def test_rows_are_dealt_out_evenly() -> None:
    engines, rows = Engines(3), [last_of(LONG) for _ in range(9)]
    engines.submit(*rows[:4])
    engines.submit(*rows[4:])
    assert sorted(numbers_of(rows)) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_next_row_goes_where_the_fewest_are() -> None:
    engines, first, second = Engines(), last_of(LONG), last_of([1])
    engines.submit(first, second)
    engines.tick()
    engines.submit(third := last_of(LONG))
    assert third.engine == second.engine != first.engine


def test_equal_prompts_go_to_one_engine_which_has_their_state_cached() -> None:
    engines = Engines(slots=8)
    texts = [generation_of(PROMPT, 3, Sampling(seed=seed)) for seed in range(6)]
    for text in texts:
        engines.submit(text)
        engines.finish()
    assert len(set(numbers_of(texts))) == 1
    assert (
        sum(rows for cell in engines.cells for rows, steps in cell.runs if steps == 4)
        == (len(PROMPT) - 1) // 4
    )
    assert_answered(*texts)


def test_equal_prompts_spread_where_one_engine_would_get_much_busier() -> None:
    engines = Engines()
    texts = [generation_of(PROMPT, 3, Sampling(seed=seed)) for seed in range(60)]
    engines.submit(*texts)
    assert sorted(np.bincount(numbers_of(texts))) == [26, 34]
    engines.finish()
    assert_answered(*texts)


def test_cancelled_rows_leave_their_own_engines() -> None:
    engines, rows = Engines(), [generation_of([1], 1000) for _ in range(6)]
    engines.submit(*rows)
    engines.tick()
    engines.group.cancel(rows)
    engines.tick()
    assert engines.group.active == 0
    assert_counted_out(engines.group)


def test_engine_that_is_given_nothing_is_not_woken() -> None:
    engines, woken = Engines(3), list[int]()
    for number, engine in enumerate(engines.each):
        engine.inbox.wake = partial(woken.append, number)
    engines.submit(row := last_of([1]))
    assert woken == [row.engine]
    engines.group.cancel([row])
    assert woken == [row.engine] * 2


# Failed engines.


def test_group_has_failed_when_one_engine_has() -> None:
    engines = Engines()
    engines.submit(last_of([1]), last_of([1]))
    engines.fail(1)
    assert engines.group.has_failed


def test_request_that_meets_a_failed_engine_is_refused_whole() -> None:
    engines = Engines()
    engines.submit(last_of([1]), last_of([1]))
    engines.fail(1)
    engines.tick_one(0)
    rows = [last_of([2, 3]) for _ in range(4)]
    with pytest.raises(ModelFailure, match="has stopped on an error"):
        engines.submit(*rows)
    engines.tick_one(0)
    assert [received(one) for one in rows] == [[]] * 4
    assert engines.group.num_waiting == engines.group.active == 0


# Refusals at once.


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30))
def test_load_tells_a_clients_own_rows_from_those_of_others(drawn: list[tuple[str, int]]) -> None:
    bench = Bench(slots=2, chunk=1)
    bench.submit(long := last_of([1] * 1000, client="z"))
    bench.tick()
    for client, steps in drawn:
        bench.submit(last_of([1] * steps, client=client))
    bench.engine._drain_inbox(0.0)
    bench.engine._publish(Active(1, 1, 999))
    own, own_steps = Counter(client for client, _ in drawn), Counter[str]()
    for client, steps in drawn:
        own_steps[client] += steps
    for client in {*own, "new"}:
        load = bench.group._load_of(bench.engine, client, bench.group._account_of(client))
        assert (load.own_rows, load.own_steps) == (own[client], own_steps[client])
        assert (load.other_rows, load.other_steps) == (
            len(drawn) - own[client] + 1,
            own_steps.total() - own_steps[client] + 999,
        )
        assert load.other_clients == max(1, len(own)) - (client in own) if drawn else 1
    load = bench.group._load_of(bench.engine, "z", bench.group._account_of("z"))
    assert (load.own_rows, load.own_steps) == (1, 999)
    bench.cancel(long)
    bench.tick_until_idle()
    bench.assert_empty()


def test_bound_of_the_queue_is_that_of_all_engines() -> None:
    engines = Engines(max_waiting=5)
    engines.submit(*[last_of(LONG) for _ in range(4)])
    refused = [last_of([1]), last_of([1])]
    with pytest.raises(Overloaded, match="expected at most 5 waiting sequences, found 4 and 2 more"):
        engines.submit(*refused)
    engines.finish()
    assert [received(one) for one in refused] == [[], []]


@pytest.mark.parametrize("count", [1, 2])
def test_rows_are_refused_before_any_turn_has_run(count: int) -> None:
    engines = Engines(count, max_waiting=3)
    for _ in range(3):
        engines.submit(last_of([1]))
    for _ in range(2):
        with pytest.raises(Overloaded):
            engines.submit(last_of([1]))
    assert sum(len(engine.inbox) for engine in engines.each) == 3
    assert engines.group.num_waiting == 3


@pytest.mark.parametrize("leave", ["admitted", "cancelled", "out of time"])
def test_places_are_free_after_the_turn_in_which_rows_have_left_the_queue(leave: str) -> None:
    bench = Bench(slots=2, max_waiting=2)
    if leave != "admitted":
        bench.run(*[generation_of([1], 10_000, max_backlog=9) for _ in range(2)])
        bench.submit(generation_of([1], 100), generation_of([1], 100))
        bench.tick()
    rows = [generation_of([1], 100, deadline=5.0) for _ in range(2)]
    bench.submit(*rows)
    with pytest.raises(Overloaded):
        bench.submit(last_of([1]))
    if leave == "cancelled":
        bench.cancel(*rows)
    elif leave == "out of time":
        bench.now = 5.0
    with pytest.raises(Overloaded):
        bench.submit(last_of([1]))
    bench.tick()
    assert bench.group.num_waiting == 0
    bench.submit(last_of([1]), last_of([1]))


# Eviction.


def test_newest_rows_of_the_client_with_most_make_room() -> None:
    bench = Bench(slots=1, max_waiting=5)
    many, few = by("a", *[last_of([index]) for index in range(4)]), by("b", last_of([5]), last_of([6]))
    bench.submit(*many)
    bench.submit(few[0])
    bench.submit(few[1])
    assert waiting(bench.group) == {"a": 3, "b": 2}
    bench.tick()
    assert kinds_of(many[3]) == [Overloaded]
    assert received(many[3])[0].retry_after_s > 0
    bench.tick_until_idle()
    assert_answered(*many[:3], *few)
    bench.assert_empty()


def test_no_row_is_evicted_for_a_client_that_would_have_as_many() -> None:
    bench = Bench(slots=1, max_waiting=5)
    bench.submit(*by("a", *[last_of([1]) for _ in range(3)]))
    bench.submit(*by("b", *[last_of([1]) for _ in range(2)]))
    for client in "ab":
        with pytest.raises(Overloaded):
            bench.submit(last_of([1], client=client))
    assert waiting(bench.group) == {"a": 3, "b": 2}
    bench.tick_until_idle()
    bench.assert_empty()


def test_no_row_is_evicted_where_not_all_that_come_would_have_room() -> None:
    bench = Bench(slots=1, max_waiting=4)
    bench.submit(*by("a", last_of([1]), last_of([1])))
    bench.submit(*by("b", last_of([1]), last_of([1])))
    with pytest.raises(Overloaded):
        bench.submit(*by("c", *[last_of([1]) for _ in range(3)]))
    assert waiting(bench.group) == {"a": 2, "b": 2}


def test_rows_are_evicted_in_the_engines_where_most_wait() -> None:
    engines = Engines(2, max_waiting=6, slots=1)
    engines.submit(*by("a", *[last_of([1]) for _ in range(6)]))
    many = by("b", last_of([1]), last_of([1]))
    engines.submit(*many)
    assert [engine.inbox.take() is not None for engine in engines.each] == [True, True]
    evictions = [engine.inbox.take() for engine in engines.each]
    assert [getattr(message, "num_rows", None) for message in evictions] == [1, 1]
    assert waiting(engines.group) == {"a": 4, "b": 2}


def test_every_client_keeps_its_part_of_a_full_queue() -> None:
    bench = Bench(slots=1, max_waiting=12)
    bench.submit(*by("a", *[last_of([1]) for _ in range(12)]))
    rows = [last_of([2], client=client) for _ in range(4) for client in "bc"]
    for row in rows:
        try:
            bench.submit(row)
        except Overloaded:
            assert waiting(bench.group)[row.client] == 4
    assert waiting(bench.group) == {"a": 4, "b": 4, "c": 4}
    bench.tick_until_idle()
    assert_answered(*rows)
    bench.assert_empty()


class Watched(dict[str, Account]):
    """Accounts that count how often all of them are looked through."""

    looks = 0

    def items(self) -> Any:
        self.looks += 1
        return super().items()


def test_refusals_in_a_row_look_through_the_clients_once() -> None:
    bench = Bench(slots=1, max_waiting=200)
    bench.group._accounts = accounts = Watched()
    for number in range(200):
        bench.submit(last_of([1], client=str(number)))
    for number in range(300):
        with pytest.raises(Overloaded):
            bench.submit(last_of([1], client=f"refused {number % 20}"))
    assert accounts.looks == 1
    bench.tick()
    bench.submit(last_of([1], client="one"))
    with pytest.raises(Overloaded):
        bench.submit(last_of([1], client="refused"))
    assert accounts.looks == 2
    bench.tick_until_idle()
    bench.assert_empty()


@pytest.mark.parametrize("num_turns", range(7))
def test_rows_admitted_between_the_decision_and_its_turn_are_not_evicted(num_turns: int) -> None:
    """Other messages hold up the eviction for some turns, in each of which one more row is admitted."""
    bench = Bench(slots=5, max_waiting=5, clock=Stopwatch(OVER_BUDGET_S))
    many = by("many", *[generation_of([index], 100) for index in range(5)])
    few = by("few", last_of([1]), last_of([2]))
    bench.submit(*many)
    for _ in range(num_turns):
        bench.group.resume(many[0])  # changes nothing
    bench.submit(*few)
    num_evicted = max(0, min(2, 5 - num_turns - 1))
    bench.tick_until_idle()
    assert [kinds_of(row) for row in many[5 - num_evicted :]] == [[Overloaded]] * num_evicted
    assert_answered(*many[: 5 - num_evicted], *few)
    bench.assert_empty()


def test_rows_cancelled_between_the_decision_and_its_turn_are_counted_once() -> None:
    bench = Bench(slots=1, max_waiting=4)
    many = by("many", *[last_of([1]) for _ in range(4)])
    bench.submit(*many)
    bench.cancel(*many)
    bench.submit(*by("few", row := last_of([2])))
    assert bench.group.num_waiting == 4
    bench.tick()
    assert bench.group.num_waiting == 0
    assert_answered(row)
    assert [received(one) for one in many] == [[]] * 4
    bench.assert_empty()


# Counters.


def test_accounts_of_clients_without_waiting_rows_are_forgotten() -> None:
    bench = Bench(slots=1, max_waiting=10_000)
    bench.submit(first := generation_of([1], 1_000_000, client="first"))
    bench.tick()
    staying = [last_of([1], client=f"staying {number}") for number in range(10)]
    for row in staying:
        bench.submit(row)
    for number in range(3000):
        bench.submit(row := last_of([1], client=f"leaving {number}"))
        bench.cancel(row)
        bench.tick()
    assert len(bench.group._accounts) <= 512
    assert {row.client for row in staying} <= bench.group._accounts.keys()
    bench.cancel(first)
    bench.tick_until_idle()
    assert_answered(*staying)


def test_many_clients_with_waiting_rows_are_not_looked_through_at_every_arrival() -> None:
    """Accounts are looked through when there are twice as many as were useful the last time."""
    bench, looks = Bench(slots=1, max_waiting=100_000), 0
    for number in range(3000):
        accounts = bench.group._accounts
        bench.submit(last_of([1], client=str(number)))
        looks += bench.group._accounts is not accounts
    assert len(bench.group._accounts) == 3000
    assert looks <= 5


scripts = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 99), st.integers(0, 3)),
        st.tuples(st.just("tick"), st.integers(0, 2), st.integers(1, 4)),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 8),
    st.sampled_from([0.0, BUDGET_S / 4, OVER_BUDGET_S]),
    scripts,
)
def test_counters_are_exact_whatever_races_with_what(
    count: int, slots: int, max_waiting: int, step_s: float, script: list[tuple[str, int, int]]
) -> None:
    """Turns leave messages behind, so decisions meet rows that have left the queue meanwhile."""
    engines = Engines(count, max_waiting, slots, Stopwatch(step_s))
    accepted, cancelled = list[Row](), set[Row]()
    for operation, number, amount in script:
        if operation == "submit":
            rows = by("abcd"[number], *[last_of(LONG[:amount]) for _ in range(amount)])
            try:
                engines.submit(*rows)
            except Overloaded:
                continue
            accepted += rows
        elif operation == "cancel" and accepted:
            leaving = accepted[number % len(accepted) :][:amount]
            engines.group.cancel(leaving)
            cancelled.update(row for row in leaving if not row.is_over)
        elif operation == "tick":
            for _ in range(amount):
                engines.tick_one(number % count)
    engines.finish()
    assert waiting(engines.group) == {}
    outcomes = Counter(str([kind.__name__ for kind in kinds_of(row)]) for row in accepted)
    assert set(outcomes) <= {"['ndarray']", "['Overloaded']", "[]"}
    assert_answered(*[row for row in accepted if kinds_of(row) == [np.ndarray]])
    assert all(row in cancelled for row in accepted if not received(row))
    assert all(row.is_over for row in accepted)
