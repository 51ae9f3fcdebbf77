"""Tests of service.engine.scheduler: plans looked at one by one, and carried out again and again."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.queue import FairQueue
from service.engine.request import Row, SuspendedRow
from service.engine.scheduler import (
    MAX_PREEMPTIONS,
    MIN_TURNS,
    Occupancy,
    Plan,
    Preemption,
    Tick,
    next_tick,
    plan,
)
from tests.service.engine.fakes import by, generation_of, last_of

CLIENTS = "abcd"
clients = st.sampled_from(CLIENTS)


@dataclass
class House:
    """Slots and a queue without an engine: plans are carried out and rows advanced by hand.

    A row has prefill steps, then tokens; each turn runs one of either for every row that holds a slot.

    Attributes:
        done: prefill steps and tokens that have been run of each row.
    """

    slots: int
    prefill_slots: int = 100
    queue: FairQueue = field(default_factory=FairQueue)
    active: list[Row] = field(default_factory=list)
    done: Counter[Row] = field(default_factory=Counter)
    turn: int = 0

    def submit(self, *rows: Row) -> list[Row]:
        for row in rows:
            self.queue.append(row)
        return list(rows)

    def is_prefilling(self, row: Row) -> bool:
        return self.done[row] < row.prefill_steps

    def occupancy(self) -> Occupancy:
        prefilling = [row for row in self.active if self.is_prefilling(row)]
        decoding = [row for row in self.active if not self.is_prefilling(row)]
        held = Counter(row.client for row in self.active)
        in_prefill = Counter(row.client for row in prefilling)
        return Occupancy(self.slots, self.prefill_slots, prefilling, decoding, held, in_prefill, self.turn)

    def plan(self) -> Plan:
        """Return the plan; raise AssertionError where it changed anything or breaks a bound."""
        before = self.occupancy()
        facts = list(self.queue.in_turn()), list(self.queue.clients), self.queue.steps
        copies = list(before.prefilling), list(before.decoding), dict(before.held)
        found = plan(self.queue, before)
        assert facts == (list(self.queue.in_turn()), list(self.queue.clients), self.queue.steps)
        assert copies == (before.prefilling, before.decoding, before.held)
        rows = [*found.admit, *(row for pair in found.preempt for row in pair)]
        assert len(set(rows)) == len(rows), "a row is in a plan once"
        assert len(found.preempt) <= MAX_PREEMPTIONS
        for victim, successor in found.preempt:
            assert victim in self.active
            assert self.turn - victim.admitted_in >= MIN_TURNS
            assert successor in self.queue
            assert victim.client != successor.client
        return found

    def carry_out(self) -> Plan:
        """Do what the plan says, one change after the other; no bound is broken at any time."""
        found = self.plan()
        for row in found.admit:
            self._admit(row)
        for victim, successor in found.preempt:
            self.active.remove(victim)
            self._suspend(victim)
            self._admit(successor)
        return found

    def _admit(self, row: Row) -> None:
        self.queue.take(row)
        row.suspended, row.admitted_in = None, self.turn
        self.active.append(row)
        prefilling = sum(map(self.is_prefilling, self.active))
        assert len(self.active) <= self.slots, "more rows than slots"
        assert prefilling <= self.prefill_slots, "more prefilling rows than prefill slots"

    def _suspend(self, row: Row) -> None:
        steps = min(self.done[row], row.prefill_steps)
        columns: dict[str, Any] | None = None if self.is_prefilling(row) else {}
        row.suspended = SuspendedRow(steps, None, columns)
        self.queue.append(row)

    def run(self) -> list[Row]:
        """Carry out a plan, then run a step of each active row; return those that have ended."""
        self.carry_out()
        self.turn += 1
        for row in self.active:
            self.done[row] += 1
        ended = [row for row in self.active if self.done[row] >= work_of(row)]
        self.active = [row for row in self.active if row not in ended]
        return ended


def work_of(row: Row) -> int:
    return row.prefill_steps + row.request.max_tokens


def stream(client: str = "", max_tokens: int = 50) -> Row:
    """Build a row that generates at once."""
    return generation_of([1], max_tokens, client=client)


def house_with(active: str, slots: int = 3, make: Callable[[str], Row] = stream) -> House:
    """Return a house whose slots are held by a row for each letter, its client, admitted long ago."""
    house = House(slots)
    house.submit(*map(make, active))
    while house.carry_out().admit:
        pass
    assert sorted(row.client for row in house.active) == sorted(active)
    house.turn += MIN_TURNS
    return house


# Admission.


def test_admission_is_first_come_first_served() -> None:
    house = House(2)
    rows = house.submit(*[last_of([1]) for _ in range(5)])
    assert house.carry_out() == Plan(rows[:2], [])
    house.active.pop()
    assert house.carry_out() == Plan(rows[2:3], [])


def test_clients_take_turns() -> None:
    house = House(20)
    house.submit(*map(stream, "aaaabbc"))
    assert "".join(row.client for row in house.plan().admit) == "abcabaa"


def test_nothing_is_admitted_without_a_free_slot() -> None:
    house = House(1)
    house.submit(last_of([1]), last_of([1]))
    house.carry_out()
    assert house.plan() == Plan([], [])


def test_nothing_is_planned_for_an_empty_queue() -> None:
    assert house_with("aab").plan() == Plan([], [])


def test_returning_row_is_admitted_before_those_that_wait() -> None:
    house, returning = House(1), last_of([1])
    house.submit(last_of([1]), last_of([1]))
    house.queue.append_first(returning)
    assert house.plan().admit == [returning]


def test_removed_rows_take_no_slot() -> None:
    house = House(2)
    rows = house.submit(*[last_of([1]) for _ in range(4)])
    house.queue.remove(rows[0])
    house.queue.remove(rows[2])
    assert house.plan().admit == [rows[1], rows[3]]
    assert len(house.queue) == 2


def test_line_waits_for_its_head_where_nothing_can_be_prefilled() -> None:
    house = House(3, prefill_slots=0)
    rows = house.submit(stream(), last_of([1]), stream())
    assert house.carry_out().admit == rows[:1]
    assert house.plan() == Plan([], [])
    house.prefill_slots = 1
    assert house.plan().admit == rows[1:]


def test_row_that_can_generate_is_not_held_up_by_one_that_cannot_prefill() -> None:
    house = House(9, prefill_slots=0)
    [_, ready] = house.submit(last_of([1], client="a"), stream("b"))
    assert house.plan() == Plan([ready], [])


def test_row_that_can_generate_is_not_held_up_by_one_whose_victim_may_not_be_preempted_yet() -> None:
    house = House(9, prefill_slots=2)
    house.submit(*by("a", last_of([1] * 50), last_of([1] * 50)))
    house.carry_out()
    [_, ready] = house.submit(last_of([1], client="b"), stream("c"))
    assert house.plan() == Plan([ready], [])


@given(st.integers(1, 4), st.lists(st.sampled_from(["submit", "return", "plan", "end"]), max_size=60))
def test_one_client_is_served_as_by_a_plain_line(slots: int, operations: list[str]) -> None:
    house, line = House(slots), deque[Row]()
    for operation in operations:
        if operation == "submit":
            line.extend(house.submit(last_of([1])))
        elif operation == "return":
            line.appendleft(last_of([1]))
            house.queue.append_first(line[0])
        elif operation == "end" and house.active:
            house.active.pop(0)
        elif operation == "plan":
            right = [line.popleft() for _ in range(min(len(line), slots - len(house.active)))]
            assert house.carry_out() == Plan(right, [])
        assert len(house.queue) == len(line)


# Preemption.


def test_client_without_rows_gets_one_of_the_client_with_most() -> None:
    house = house_with("aaa")
    [_, waiting] = house.submit(stream("a"), stream("b"))
    assert house.plan() == Plan([], [Preemption(house.active[0], waiting)])


@pytest.mark.parametrize("active", ["aab", "abc"])
def test_equal_parts_and_those_that_differ_by_one_are_left_alone(active: str) -> None:
    house = house_with(active)
    house.submit(*map(stream, "aab"))
    assert house.plan() == Plan([], [])


def test_one_client_alone_is_not_preempted() -> None:
    house = house_with("aaa")
    house.submit(*map(stream, "aaa"))
    assert house.plan() == Plan([], [])


def test_row_in_prefill_is_preempted_where_nothing_else_frees_a_prefill_slot() -> None:
    house = House(9, prefill_slots=2)
    house.submit(*map(stream, "aaa"), *by("a", last_of([1] * 99), last_of([1] * 99)))
    house.carry_out()
    house.turn += MIN_TURNS
    [waiting] = house.submit(last_of([1], client="b"))
    assert house.plan() == Plan([], [Preemption(house.occupancy().prefilling[0], waiting)])  # type: ignore[index]


def test_row_held_longest_is_preempted_once_it_has_run_a_few_turns() -> None:
    house = house_with("aab", slots=3)
    late, early, _ = sorted(house.active, key=lambda row: row.client)
    late.admitted_in, early.admitted_in = 3, 2
    [waiting] = house.submit(stream("c"))
    house.turn = 2 + MIN_TURNS - 1
    assert house.plan() == Plan([], [])
    house.turn += 1
    assert house.plan() == Plan([], [Preemption(early, waiting)])


def test_no_more_rows_are_preempted_at_once_than_the_maximum() -> None:
    house = house_with("a" * 20, slots=20)
    house.submit(*map(stream, "b" * 20))
    assert len(house.plan().preempt) == 1  # a client's line has one head
    house.submit(*map(stream, "cdefghij"))
    assert len(house.plan().preempt) == MAX_PREEMPTIONS


rows_to_come = st.lists(
    st.tuples(clients, st.integers(1, 12), st.integers(0, 9), st.booleans()), min_size=1, max_size=25
)


def rows_of(drawn: list[tuple[str, int, int, bool]]) -> list[Row]:
    """Build LAST rows, and generations with prompts of any length."""
    return [
        generation_of([1] * length, max_tokens + 1, client=client)
        if generates
        else last_of([1] * length, client=client)
        for client, length, max_tokens, generates in drawn
    ]


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(
        st.tuples(st.sampled_from(["submit", "plan", "run", "wait", "remove"]), rows_to_come), max_size=25
    ),
)
def test_plans_keep_every_bound_and_change_nothing(
    slots: int, prefill_slots: int, script: list[tuple[str, list[tuple[str, int, int, bool]]]]
) -> None:
    house = House(slots, prefill_slots)
    for operation, drawn in script:
        if operation == "submit":
            house.submit(*rows_of(drawn))
        elif operation == "plan":
            house.carry_out()
        elif operation == "run":
            house.run()
        elif operation == "wait":
            house.turn += len(drawn)
        elif house.queue:
            waiting = list(house.queue.in_turn())
            house.queue.remove(waiting[len(drawn) % len(waiting)])
        house.plan()


@given(st.integers(1, 8), st.lists(clients, max_size=20), st.lists(clients, max_size=20))
def test_parts_that_differ_by_more_than_one_row_are_evened_out(
    slots: int, first: list[str], later: list[str]
) -> None:
    """Nothing ends: once a plan has nothing to do, the parts are as equal as the waiting rows allow."""
    house = House(slots)
    house.submit(*map(stream, first))
    house.carry_out()
    house.submit(*map(stream, later))
    for _ in range(50):
        house.turn += MIN_TURNS
        if house.carry_out() == Plan([], []):
            break
    else:
        raise AssertionError("plans never come to rest")
    held = Counter(row.client for row in house.active)
    assert len(house.active) == slots or not house.queue
    for client in house.queue.clients:
        assert held[client] >= max(held.values()) - 1


@given(st.integers(1, 6), st.integers(1, 6), st.lists(rows_to_come, min_size=1, max_size=4))
def test_no_slot_stays_free_for_a_client_whose_next_row_could_have_it(
    slots: int, prefill_slots: int, groups: list[list[tuple[str, int, int, bool]]]
) -> None:
    house = House(slots, prefill_slots)
    for drawn in groups:
        house.submit(*rows_of(drawn))
        house.run()
        for _ in CLIENTS:
            house.carry_out()
        now = house.occupancy()
        if len(house.active) < slots:
            heads = [house.queue.first_of(client) for client in house.queue.clients]
            assert all(row.prefill_steps_left for row in heads)
            assert not heads or len(now.prefilling) == prefill_slots


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.tuples(rows_to_come, st.integers(0, 20)), min_size=1, max_size=5),
)
def test_every_row_ends_however_they_come(
    slots: int, prefill_slots: int, script: list[tuple[list[tuple[str, int, int, bool]], int]]
) -> None:
    """Every turn runs at least one row while any waits: all work is done in as many turns as it has steps."""
    house, everyone, ended = House(slots, prefill_slots), list[Row](), list[Row]()
    for drawn, turns in script:
        everyone += house.submit(*rows_of(drawn))
        for _ in range(turns):
            ended += house.run()
    for _ in range(sum(map(work_of, everyone))):
        ended += house.run()
    assert Counter(ended) == Counter(everyone)


@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5), st.booleans()), min_size=30, max_size=30),
)
def test_client_with_one_row_is_not_starved_by_another_that_always_has_more(
    slots: int, prefill_slots: int, drawn: list[tuple[int, int, bool]]
) -> None:
    house = House(slots, prefill_slots)
    flood = rows_of([("many", length, tokens, generates) for length, tokens, generates in drawn])
    house.submit(*flood)
    for _ in range(5):
        house.run()
    [row] = house.submit(last_of([1] * 3, client="few"))
    for _ in range(MIN_TURNS + 20):
        if row in house.run():
            return
        if len(house.queue) < 10:
            house.submit(
                *rows_of([("many", length, tokens, generates) for length, tokens, generates in drawn])
            )
    raise AssertionError("the row was passed over for too long")


# Ticks.


@pytest.mark.parametrize(
    ("num_prefilling", "num_decoding", "tick"),
    [
        pytest.param(0, 0, None, id="nothing to run"),
        pytest.param(2, 0, Tick.CHUNK, id="prompts alone"),
        pytest.param(0, 3, Tick.STEP, id="streams alone"),
    ],
)
@pytest.mark.parametrize("last", Tick)
def test_kind_that_alone_has_rows_runs(
    num_prefilling: int, num_decoding: int, tick: Tick | None, last: Tick
) -> None:
    assert next_tick(num_prefilling, num_decoding, last) == tick


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_chunk_and_step_alternate_whenever_both_have_rows(turns: list[tuple[int, int]]) -> None:
    last = Tick.STEP
    for num_prefilling, num_decoding in turns:
        tick = next_tick(num_prefilling, num_decoding, last)
        assert (tick is None) == (num_prefilling + num_decoding == 0)
        assert tick is not Tick.CHUNK or num_prefilling
        assert tick is not Tick.STEP or num_decoding
        if num_prefilling and num_decoding:
            assert tick is not last
        last = tick or last
