"""Tests of service.engine.whole under random histories of arrivals, cancellations, deadlines, evictions and
runs that fail; and with asyncio's callers.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import ANYONE, Caller, Row
from service.engine.streaming import run_all
from service.engine.whole import WholeEngine
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from service.observability.metrics import EngineMetrics
from tests.service.engine.fakes import (
    PATIENCE_S,
    SHAPE,
    assert_same,
    expected,
    last_of,
    received,
    row_of,
)
from tests.service.engine.test_threads import driving
from tests.service.engine.whole_fakes import FakeWholeCell, WholeBench

clients = st.sampled_from("abc")
operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            clients,
            st.lists(st.integers(1, 30), min_size=1, max_size=5),
            st.sampled_from([None, None, 1.0, 4.0]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
        st.tuples(st.just("wait"), st.floats(0.1, 3.0)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("turn")),
        st.tuples(st.just("fail")),
    ),
    max_size=50,
)


class History:
    """An engine and everything that was accepted, one operation after the other."""

    def __init__(self) -> None:
        self.bench = WholeBench(slots=3, steps=60, max_waiting=9)
        self.accepted: list[Row] = []
        self.cancelled: set[Row] = set()

    def submit(self, client: str, lengths: Sequence[int], patience: float | None) -> None:
        deadline = None if patience is None else self.bench.now + patience
        rows = [last_of([1] * length, deadline, client) for length in lengths]
        try:
            self.bench.submit(*rows)
        except Overloaded:
            return
        self.accepted += rows

    def cancel(self, number: int) -> None:
        if self.accepted:
            row = self.accepted[number % len(self.accepted)]
            self.bench.cancel(row)
            if not row.is_over:
                self.cancelled.add(row)

    def wait(self, seconds: float) -> None:
        self.bench.now += seconds

    def turn(self) -> None:
        self.bench.tick()

    def fail(self) -> None:
        """Let the next run fail."""
        self.bench.cell.failures |= {len(self.bench.cell.runs)}

    def check_end_of(self, row: Row) -> None:
        """Raise AssertionError unless a row has its answer, an error that it may have, or nobody waits."""
        outputs = received(row)
        assert row.is_over
        if row in self.cancelled and not outputs:
            return
        [output] = outputs
        if isinstance(output, DeadlineExceeded):
            assert row.deadline is not None
            assert row.times.ended_at >= row.deadline
        elif isinstance(output, ModelFailure):
            assert self.bench.cell.failures
        elif not isinstance(output, Overloaded):
            assert_same(outputs, expected(row))


@given(operations)
def test_every_row_has_one_end_and_leaves_nothing_behind(drawn: list[Any]) -> None:
    history = History()
    for name, *arguments in drawn:
        getattr(history, name)(*arguments)
    history.bench.tick_until_idle()
    for row in history.accepted:
        history.check_end_of(row)
    history.bench.assert_empty()


# Callers in the event loop.

# No turn ends its bookkeeping early, however slow the machine.
LIMITS = Limits(4, 100, chunk_steps=100, budget_s=PATIENCE_S)


class GatedCell(FakeWholeCell):
    """A fake cell whose runs wait at a gate; `is_inside` is set once one waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.is_inside = asyncio.Event()
        self.gate = asyncio.Event()

    def run(self, *arguments: Any) -> Any:
        self._loop.call_soon_threadsafe(self.is_inside.set)
        asyncio.run_coroutine_threadsafe(self.gate.wait(), self._loop).result(PATIENCE_S)
        return super().run(*arguments)


async def test_caller_who_leaves_during_a_run_changes_nothing_for_others() -> None:
    cell = GatedCell(asyncio.get_running_loop())
    engine = WholeEngine("fake", cell, SHAPE, LIMITS, EngineMetrics())
    group = EngineGroup([engine], 20)
    requests = [last_of([1] * length).request for length in (5, 5, 40)]
    async with driving("thread", [engine]) as failed, asyncio.timeout(PATIENCE_S):
        leaving = asyncio.ensure_future(run_all(group, requests, Caller(client="a")))
        await cell.is_inside.wait()
        staying = asyncio.ensure_future(run_all(group, requests, Caller(client="b")))
        await asyncio.sleep(0)  # it submits
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        cell.gate.set()
        answers = await staying
    assert not failed
    for request, answer in zip(requests, answers, strict=True):
        assert_same([answer], expected(row_of(request)))
    # The row of 40 steps of who left has not run: its turn was after the run that he left in.
    assert sorted(length for run in cell.runs for length in run) == [5, 5, 5, 5, 40]


async def test_deadline_ends_a_row_that_waits_while_others_run() -> None:
    """Its error comes as soon as the run is over, which cannot be cut."""
    cell, now = GatedCell(asyncio.get_running_loop()), [0.0]
    engine = WholeEngine("fake", cell, SHAPE, LIMITS, EngineMetrics(), lambda: now[0])
    group = EngineGroup([engine], 20)
    async with driving("thread", [engine]), asyncio.timeout(PATIENCE_S):
        running = asyncio.ensure_future(run_all(group, [last_of([1] * 5).request], ANYONE))
        await cell.is_inside.wait()
        waiting = asyncio.ensure_future(run_all(group, [last_of([1] * 5).request], Caller(deadline=1.0)))
        await asyncio.sleep(0)  # it submits
        now[0] = 2.0
        cell.gate.set()
        with pytest.raises(DeadlineExceeded):
            await waiting
        await running
    assert len(cell.runs) == 1
