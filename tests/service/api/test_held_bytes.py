"""service.api.held_bytes: whatever callers take and give back, a newcomer finds room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.api.held_bytes import CALL_BYTES, MESSAGE_FACTOR, HeldBytes, Holding, min_held_bytes
from service.errors import BytesExhausted

CALLERS = ("first", "second", "third")


def test_caller_alone_may_hold_half() -> None:
    held = HeldBytes(100)
    held.take("first", 50)
    with pytest.raises(BytesExhausted):
        held.take("first", 1)
    assert held.total == 50


def test_newcomer_finds_half_of_what_nobody_holds() -> None:
    held = HeldBytes(96)
    held.take("first", 48)
    held.take("second", 24)
    assert held.room_for("third") == 12


def test_cached_bytes_are_no_room_for_calls() -> None:
    held = HeldBytes(100)
    held.cached = 40
    assert held.room_for("first") == 30
    with pytest.raises(BytesExhausted, match="0 of 60 bytes"):
        held.take("first", 31)


def test_refusal_names_what_is_held_and_what_was_found() -> None:
    held = HeldBytes(100)
    held.take("first", 30)
    with pytest.raises(BytesExhausted, match=r"30 of 100 bytes.*expected at most 20 more, found 21"):
        held.take("first", 21)


def test_bytes_given_back_can_be_taken_again() -> None:
    held = HeldBytes(100)
    held.take("first", 50)
    held.give_back("first", 50)
    held.take("second", 50)
    assert held.total == 50


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

    @initialize(bound=st.integers(1, 1000))
    def begin(self, bound: int) -> None:
        self.held = HeldBytes(bound)
        self.holdings: list[Holding] = []
        self.counts: dict[Holding, int] = {}

    @rule(caller=st.sampled_from(CALLERS), count=st.integers(0, 500))
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
            assert self.held.room_for("newcomer") >= self.held.max_bytes // 2 ** (len(CALLERS) + 1)


TestCallers = Callers.TestCase
