"""service.api.held_bytes: whatever callers take and give back, a newcomer finds room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.api.held_bytes import (
    CALL_BYTES,
    MESSAGE_FACTOR,
    SMALL_BYTES,
    HeldBytes,
    Holding,
    min_held_bytes,
)
from service.errors import BytesExhausted

CALLERS = ("first", "second", "third")
MIB = 1 << 20


def test_caller_alone_may_hold_half_of_what_is_shared() -> None:
    held = HeldBytes(160 * MIB)
    held.take("first", 75 * MIB)
    with pytest.raises(BytesExhausted):
        held.take("first", 1)
    assert held.total == 75 * MIB


def test_newcomer_finds_half_of_what_nobody_holds() -> None:
    held = HeldBytes(160 * MIB)
    held.take("first", 70 * MIB)
    held.take("second", 40 * MIB)
    assert held.room_for("third") == 20 * MIB


def test_callers_who_hold_next_to_nothing_find_room_where_others_hold_all_that_is_shared() -> None:
    held = HeldBytes(160 * MIB)
    for number in range(40):
        held.take(f"large {number}", held.room_for(f"large {number}"))
    assert held.max_bytes - held.total < held.max_bytes // 16 + SMALL_BYTES
    for number in range(40):
        held.take(f"small {number}", SMALL_BYTES)
        assert held.room_for(f"small {number}") == 0


def test_nobody_finds_room_beyond_the_bound() -> None:
    held = HeldBytes(SMALL_BYTES)
    held.take("first", SMALL_BYTES)
    with pytest.raises(BytesExhausted):
        held.take("second", 1)


def test_cached_bytes_are_no_room_for_calls() -> None:
    held = HeldBytes(160 * MIB)
    held.set_cached(50 * MIB)
    assert held.room_for("first") == 50 * MIB
    with pytest.raises(BytesExhausted, match=rf"0 of {110 * MIB} bytes"):
        held.take("first", 50 * MIB + 1)


def test_cached_bytes_leave_room_for_a_largest_message() -> None:
    held = HeldBytes(160 * MIB, min_held_bytes(4 * MIB))
    held.set_cached(1 << 40)
    Holding(held, "first").take(MESSAGE_FACTOR * 4 * MIB)


def test_refusal_names_what_is_held_and_what_was_found() -> None:
    held = HeldBytes(1000)
    held.take("first", 900)
    with pytest.raises(
        BytesExhausted, match=r"900 of 1000 bytes, .*900: expected at most 100 more, found 101"
    ):
        held.take("first", 101)


def test_bytes_given_back_can_be_taken_again() -> None:
    held = HeldBytes(100)
    held.take("first", 100)
    held.give_back("first", 100)
    held.take("second", 100)
    assert held.total == 100


def test_answer_is_held_while_it_is_computed() -> None:
    held = HeldBytes(160 * MIB)
    holding = Holding(held, "first")
    with holding.of_answer(MIB):
        assert held.total == MIB
    with pytest.raises(ZeroDivisionError), holding.of_answer(MIB):
        raise ZeroDivisionError
    assert held.total == 0


def test_small_answer_is_within_what_every_call_holds() -> None:
    held = HeldBytes(160 * MIB)
    with Holding(held, "first").of_answer(CALL_BYTES):
        assert held.total == 0


def test_answer_without_room_is_refused_before_it_is_computed() -> None:
    holding = Holding(HeldBytes(160 * MIB), "first")
    with pytest.raises(BytesExhausted), holding.of_answer(80 * MIB):
        raise AssertionError("the answer was computed")


def test_closed_holding_gives_all_of_its_own_back() -> None:
    held = HeldBytes(100)
    other, holding = Holding(held, "first"), Holding(held, "first")
    other.take(10)
    holding.take(20)
    holding.take(5)
    holding.give_back(1)
    holding.close()
    holding.close()
    assert held.total == 10


@given(st.integers(1, 1 << 30))
def test_smallest_bound_takes_the_largest_message(max_message_bytes: int) -> None:
    holding = Holding(HeldBytes(min_held_bytes(max_message_bytes)), "first")
    holding.take(CALL_BYTES)
    holding.take(MESSAGE_FACTOR * max_message_bytes)


class Callers(RuleBasedStateMachine):
    """Calls of several callers that take and end in any order."""

    @initialize(bound=st.integers(MIB, 100 * MIB))
    def begin(self, bound: int) -> None:
        self.held = HeldBytes(bound)
        self.holdings: list[Holding] = []
        self.counts: dict[Holding, int] = {}

    @rule(caller=st.sampled_from(CALLERS), count=st.integers(0, 60 * MIB))
    def take(self, caller: str, count: int) -> None:
        holding = Holding(self.held, caller)
        fits = holding.has_room_for(count)
        try:
            holding.take(count)
        except BytesExhausted:
            assert not fits
        else:
            assert fits
            self.counts[holding] = count

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.counts:
            holding = data.draw(st.sampled_from(list(self.counts)))
            holding.close()
            del self.counts[holding]

    @invariant()
    def total_is_what_calls_hold(self) -> None:
        if hasattr(self, "held"):
            assert self.held.total == sum(self.counts.values())

    @invariant()
    def newcomer_finds_room(self) -> None:
        if hasattr(self, "held"):
            assert self.held.room_for("newcomer") >= self.held.max_bytes * 15 // 16 // 2 ** (len(CALLERS) + 1)

    @invariant()
    def bound_is_kept(self) -> None:
        if hasattr(self, "held"):
            assert self.held.total <= self.held.max_bytes


TestCallers = Callers.TestCase
