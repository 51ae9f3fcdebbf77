"""service.api.open_inference.sequence_store: bounded, fair, and forgotten when idle, whatever happens."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.api.held_bytes import HeldBytes
from service.api.open_inference.sequence_store import (
    SEQUENCE_BYTES,
    OpenSequence,
    SequenceKey,
    SequenceStore,
)
from service.errors import BytesExhausted, SequencesExhausted

IDLE_S = 10.0
MAX_OPEN = 6
MIB = 1 << 20


def key(name: str = "7", client: str = "alice", model: str = "prices", version: int = 0) -> SequenceKey:
    return SequenceKey(client, model, version, name)


def opened(state_bytes: int = 100) -> OpenSequence:
    return OpenSequence(1, b"binding", state_bytes)


def store_of(max_open: int = MAX_OPEN, held: HeldBytes | None = None) -> SequenceStore:
    return SequenceStore(max_open, IDLE_S, held or HeldBytes(MIB))


def test_sequence_is_found_by_all_of_its_names_alone() -> None:
    store, sequence = store_of(), opened()
    store.begin(key(), sequence, 0.0)
    store.put_back(key(), 0.0)
    others = [key("8"), key(client="bob"), key(model="stock"), key(version=1)]
    assert [store.take(one, 0.0) for one in others] == [None] * 4
    assert store.take(key(), 0.0) is sequence


def test_idle_sequence_is_forgotten_after_its_time_and_not_before() -> None:
    store = store_of()
    for name, since in (("first", 0.0), ("second", 1.0)):
        store.begin(key(name), opened(), since)
        store.put_back(key(name), since)
    assert not store.forget_idle(IDLE_S - 0.001)
    assert store.num_forgotten == 0
    assert not store.forget_idle(IDLE_S)
    assert store.num_forgotten == 1
    assert store.take(key("first"), IDLE_S) is None
    assert store.take(key("second"), IDLE_S) is not None


def test_sequence_that_is_due_is_not_taken_though_nobody_has_looked_for_it() -> None:
    store = store_of()
    store.begin(key(), opened(), 0.0)
    store.put_back(key(), 0.0)
    assert store.take(key(), IDLE_S) is None
    assert (len(store), store.num_forgotten) == (0, 1)


def test_many_sequences_are_forgotten_some_at_a_time() -> None:
    held = HeldBytes(1 << 30)
    store = store_of(max_open=1000, held=held)
    for number in range(450):
        store.begin(key(str(number)), opened(), 0.0)
        store.put_back(key(str(number)), 0.0)
    assert [store.forget_idle(IDLE_S) for _ in range(3)] == [True, True, False]
    assert (len(store), store.num_forgotten, held.total) == (0, 450, 0)


def test_taken_sequence_is_not_forgotten_and_begins_to_idle_when_put_back() -> None:
    store = store_of()
    store.begin(key(), opened(), 0.0)
    store.forget_idle(100 * IDLE_S)
    assert len(store) == 1
    store.put_back(key(), 100 * IDLE_S)
    store.forget_idle(101 * IDLE_S - 0.001)
    assert len(store) == 1
    store.forget_idle(101 * IDLE_S)
    assert len(store) == 0


def test_caller_alone_opens_half_and_a_newcomer_finds_room() -> None:
    store = store_of(max_open=8)
    for number in range(4):
        store.begin(key(str(number)), opened(), 0.0)
    with pytest.raises(SequencesExhausted, match=r"4 of 8 sequences are open .*, this caller's 4: "):
        store.begin(key("one more"), opened(), 0.0)
    store.begin(key(client="bob"), opened(), 0.0)
    assert len(store) == 5


def test_single_place_goes_to_whoever_comes_first() -> None:
    store = store_of(max_open=1)
    store.begin(key(), opened(), 0.0)
    with pytest.raises(SequencesExhausted):
        store.begin(key(client="bob"), opened(), 0.0)
    store.end(key())
    store.begin(key(client="bob"), opened(), 0.0)


def test_refusal_says_when_the_longest_idle_one_is_forgotten() -> None:
    store = store_of(max_open=2)
    store.begin(key(), opened(), 0.0)
    store.put_back(key(), 3.0)
    with pytest.raises(SequencesExhausted) as refusal:
        store.begin(key("8"), opened(), 5.0)
    assert refusal.value.retry_after_s == IDLE_S - 2.0


def test_bytes_are_those_of_the_caller_and_are_given_back() -> None:
    held = HeldBytes(MIB)
    store = store_of(held=held)
    store.begin(key("é" * 10), opened(1000), 0.0)
    assert held.total == SEQUENCE_BYTES + 40 + 1000
    with pytest.raises(BytesExhausted):
        store.begin(key("large"), opened(MIB), 0.0)
    assert len(store) == 1
    store.end(key("é" * 10))
    assert held.total == 0


class Machine(RuleBasedStateMachine):
    """Sequences of several callers begin, go on, end and are forgotten, beside a plain model of them."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.held = HeldBytes(MIB)
        self.store = store_of(held=self.held)
        self.now = 0.0
        self.idle: dict[SequenceKey, float] = {}
        self.busy: set[SequenceKey] = set()
        self.states: dict[SequenceKey, OpenSequence] = {}

    @rule(
        target=taken,
        name=st.sampled_from("abcd"),
        client=st.sampled_from(["alice", "bob", "carol"]),
        size=st.integers(0, 1000),
    )
    def begin(self, name: str, client: str, size: int) -> SequenceKey:
        one = key(name, client)
        if one in self.busy:  # its turn has not come
            return one
        self.forget(one)
        own = sum(other.client == client for other in self.states)
        try:
            self.store.begin(one, sequence := opened(size), self.now)
        except SequencesExhausted:
            assert own >= MAX_OPEN - len(self.states)
        else:
            assert own < MAX_OPEN - len(self.states)
            self.states[one] = sequence
            self.busy.add(one)
        return one

    @rule(target=taken, name=st.sampled_from("abcd"), client=st.sampled_from(["alice", "bob"]))
    def take(self, name: str, client: str) -> SequenceKey:
        one = key(name, client)
        found = self.store.take(one, self.now)
        assert found is (self.states[one] if one in self.idle else None)
        if self.idle.pop(one, None) is not None:
            self.busy.add(one)
        return one

    @rule(one=consumes(taken))
    def put_back(self, one: SequenceKey) -> None:
        if one in self.busy:
            self.store.put_back(one, self.now)
            self.busy.discard(one)
            self.idle[one] = self.now

    @rule(one=consumes(taken))
    def end(self, one: SequenceKey) -> None:
        self.forget(one)

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = {one for one, since in self.idle.items() if self.now - since >= IDLE_S}
        before = self.store.num_forgotten
        assert not self.store.forget_idle(self.now)
        assert self.store.num_forgotten - before == len(due)
        for one in due:
            del self.idle[one], self.states[one]

    def forget(self, one: SequenceKey) -> None:
        self.store.end(one)
        self.states.pop(one, None)
        self.idle.pop(one, None)
        self.busy.discard(one)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.store) == len(self.states) <= MAX_OPEN
        sizes = (SEQUENCE_BYTES + 4 + one.state_bytes for one in self.states.values())
        assert self.held.total == sum(sizes)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
