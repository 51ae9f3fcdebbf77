"""service.engine.engine under random histories: arrivals, cancellations, deadlines, slow readers and failures
in any order.

Whatever happens, each sequence receives a prefix of exactly what it would have received alone, then at most
one error; a sequence whose caller stays, whose deadline holds and whose ticks succeed receives all of it.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.sampling import Sampling
from service.engine.sequence import Goal, Sequence
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    VOCABULARY,
    Bench,
    FakeCell,
    Generated,
    Reader,
    assert_same,
    expected,
    reader_of,
    received,
)

tokens = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=14)
samplings = st.builds(
    Sampling,
    st.sampled_from([0.0, 1.0]),
    st.integers(0, 3),
    st.sampled_from([1.0, 0.6]),
    st.integers(0, 2**64 - 1),
)


@dataclass(frozen=True)
class Arrival:
    """A sequence to come: `patience` seconds until its deadline; its reader pauses it at `most_backlog`."""

    inputs: list[int]
    goal: Goal
    sampling: Sampling
    max_tokens: int
    patience: int | None
    most_backlog: int


arrivals = st.builds(
    Arrival,
    tokens,
    st.sampled_from(Goal),
    samplings,
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(0, 6)),
    st.sampled_from([1, 2, 3, 1000]),
)
events = st.one_of(
    st.tuples(st.just("submit"), st.lists(arrivals, min_size=1, max_size=3)),
    st.tuples(st.sampled_from(["cancel", "take"]), st.integers(0, 99)),
    st.tuples(st.just("wait"), st.integers(1, 3)),
    st.tuples(st.just("tick"), st.integers(1, 4)),
)


@dataclass
class History:
    """An engine and everybody who ever came to it."""

    bench: Bench
    accepted: list[Sequence] = field(default_factory=list)
    refused: list[Sequence] = field(default_factory=list)
    cancelled: dict[Sequence, int] = field(default_factory=dict)

    def submit(self, group: list[Arrival]) -> None:
        sequences = [self._build(one) for one in group]
        try:
            self.bench.submit(*sequences)
        except Overloaded:
            self.refused.extend(sequences)
        else:
            self.accepted.extend(sequences)

    def _build(self, one: Arrival) -> Sequence:
        deadline = None if one.patience is None else self.bench.now + one.patience
        inputs = np.array(one.inputs, np.int64)
        return Sequence(
            inputs,
            one.goal,
            Reader(one.most_backlog),
            self.bench.now,
            deadline,
            one.sampling,
            one.max_tokens,
            wants_logprobs=True,
        )

    def cancel(self, number: int) -> None:
        if self.accepted:
            sequence = self.accepted[number % len(self.accepted)]
            self.bench.engine.cancel([sequence])
            self.cancelled.setdefault(sequence, len(received(sequence)))

    def take(self, number: int) -> None:
        if self.accepted:
            reader_of(self.accepted[number % len(self.accepted)]).take()

    def tick(self) -> None:
        """One turn, after which those out of time have been told and nobody's backlog is over its bound."""
        alive = [one for one in self.accepted if not one.is_over and one not in self.cancelled]
        self.bench.tick()
        for sequence in alive:
            if sequence.deadline is not None and sequence.deadline <= self.bench.now:
                assert isinstance(received(sequence)[-1], DeadlineExceeded)
            if sequence.goal is Goal.GENERATE and not sequence.is_over:
                # A tick looks before its own token is handed over: one more than the bound.
                assert reader_of(sequence).backlog <= reader_of(sequence).most_backlog + 1

    def finish(self) -> None:
        """Readers read, time stands still: all that is left must end within the work there is."""
        work = sum(len(one.inputs) + one.max_tokens + 2 for one in self.accepted)
        for _ in range(2 * work + 2):
            for sequence in self.accepted:
                reader_of(sequence).take()
            self.tick()
        assert all(one.is_over for one in self.accepted)
        assert self.bench.engine.active == 0
        assert not self.bench.engine._parked, "sequences that are over are still held in memory"

    def check(self) -> None:
        for sequence in self.refused:
            assert received(sequence) == []
        for sequence in self.accepted:
            self._check(sequence, received(sequence))
        failed = sum(
            isinstance(one, ModelFailure) for sequence in self.accepted for one in received(sequence)
        )
        assert failed == self.bench.cell.failed_rows

    def _check(self, sequence: Sequence, results: list[object]) -> None:
        right = expected(sequence)
        if sequence in self.cancelled:
            assert len(results) == self.cancelled[sequence]
        if results and isinstance(results[-1], DeadlineExceeded | ModelFailure):
            assert_same(results[:-1], right[: len(results) - 1])
            assert len(results) <= len(right)
        elif sequence in self.cancelled:
            assert_same(results, right[: len(results)])
        else:
            assert_same(results, right)


def play(history: History, script: list[tuple[str, object]]) -> None:
    for event, argument in script:
        if event == "submit":
            assert isinstance(argument, list)
            history.submit(argument)
            continue
        assert isinstance(argument, int)
        if event == "cancel":
            history.cancel(argument)
        elif event == "take":
            history.take(argument)
        elif event == "wait":
            history.bench.now += argument
        else:
            for _ in range(argument):
                history.tick()
    history.finish()
    history.check()


@settings(max_examples=150)
@given(
    slots=st.integers(1, 4),
    chunk=st.integers(1, 5),
    max_waiting=st.integers(1, 8),
    failures=st.one_of(st.just([]), st.lists(st.integers(0, 30), max_size=3)),
    script=st.lists(events, max_size=25),
)
def test_nobody_is_lost_doubled_mixed_up_or_starved(
    slots: int, chunk: int, max_waiting: int, failures: list[int], script: list[tuple[str, object]]
) -> None:
    play(History(Bench(slots, chunk, max_waiting, FakeCell(failures))), script)


@settings(max_examples=30)
@given(group=st.lists(arrivals, min_size=1, max_size=8), slots=st.integers(1, 9), chunk=st.integers(1, 15))
def test_slots_and_chunk_do_not_change_results(group: list[Arrival], slots: int, chunk: int) -> None:
    history = History(Bench(slots, chunk))
    history.submit([Arrival(one.inputs, one.goal, one.sampling, one.max_tokens, None, 1000) for one in group])
    history.finish()
    assert all(
        isinstance(one, Generated | np.ndarray) for sequence in history.accepted for one in received(sequence)
    )
    history.check()
