"""Tests of service.engine.engine under random histories: arrivals, cancellations, deadlines, slow readers and
failures in any order.

Whatever happens, each row receives a prefix of exactly what it would have received alone, then at most one
error; a row whose caller stays, whose deadline holds and whose ticks succeed receives all of it.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.request import Goal, Request, Row
from service.engine.sampling import Sampling
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    VOCABULARY,
    Bench,
    FakeCell,
    Generated,
    assert_same,
    expected,
    reader_of,
    received,
    row_of,
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
    """A row to come, `patience` seconds before its deadline; suspended at a backlog of `max_backlog`."""

    inputs: list[int]
    goal: Goal
    sampling: Sampling
    max_tokens: int
    patience: int | None
    max_backlog: int


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
    """An engine and all rows that were ever submitted to it."""

    bench: Bench
    accepted: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    cancelled: dict[Row, int] = field(default_factory=dict)

    def submit(self, group: list[Arrival]) -> None:
        rows = [self._build(one) for one in group]
        try:
            self.bench.submit(*rows)
        except Overloaded:
            self.refused.extend(rows)
        else:
            self.accepted.extend(rows)

    def _build(self, one: Arrival) -> Row:
        deadline = None if one.patience is None else self.bench.now + one.patience
        inputs = np.array(one.inputs, np.int64)
        request = Request(inputs, one.goal, one.sampling, one.max_tokens, wants_logprobs=True)
        return row_of(request, deadline, max_backlog=one.max_backlog)

    def cancel(self, number: int) -> None:
        if self.accepted:
            row = self.accepted[number % len(self.accepted)]
            self.bench.cancel(row)
            self.cancelled.setdefault(row, len(received(row)))

    def take(self, number: int) -> None:
        if self.accepted:
            reader_of(self.accepted[number % len(self.accepted)]).take()

    def tick(self) -> None:
        """Run a turn; rows out of time have been told afterwards, and no backlog is over its bound."""
        alive = [one for one in self.accepted if not one.is_over and one not in self.cancelled]
        self.bench.tick()
        for row in alive:
            if row.deadline is not None and row.deadline <= self.bench.now:
                assert isinstance(received(row)[-1], DeadlineExceeded)
            if row.generates and not row.is_over:
                # A turn looks before its own token is delivered: one more than the bound.
                assert reader_of(row).backlog <= reader_of(row).max_backlog + 1

    def finish(self) -> None:
        """Let readers read while time stands still: all that is left must end within the work there is."""
        requests = [row.request for row in self.accepted]
        work = sum(len(request.inputs) + request.max_tokens + 2 for request in requests)
        for _ in range(2 * work + 2):
            for row in self.accepted:
                reader_of(row).take()
            self.tick()
        assert all(one.is_over for one in self.accepted)
        self.bench.assert_empty()

    def check(self) -> None:
        for row in self.refused:
            assert received(row) == []
        for row in self.accepted:
            self._check(row, received(row))
        failed = sum(isinstance(one, ModelFailure) for row in self.accepted for one in received(row))
        assert failed == self.bench.cell.failed_rows

    def _check(self, row: Row, outputs: list[object]) -> None:
        right = expected(row)
        if row in self.cancelled:
            assert len(outputs) == self.cancelled[row]
        if outputs and isinstance(outputs[-1], DeadlineExceeded | ModelFailure):
            assert_same(outputs[:-1], right[: len(outputs) - 1])
            assert len(outputs) <= len(right)
        elif row in self.cancelled:
            assert_same(outputs, right[: len(outputs)])
        else:
            assert_same(outputs, right)


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
def test_slots_and_chunk_do_not_change_outputs(group: list[Arrival], slots: int, chunk: int) -> None:
    history = History(Bench(slots, chunk))
    history.submit([Arrival(one.inputs, one.goal, one.sampling, one.max_tokens, None, 1000) for one in group])
    history.finish()
    assert all(isinstance(one, Generated | np.ndarray) for row in history.accepted for one in received(row))
    history.check()
