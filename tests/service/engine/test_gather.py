"""service.engine.gather, on engines driven by hand and in their own threads."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.gather import Gather, collect
from service.engine.sequence import ANYONE, Caller, Goal
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    PATIENCE_S,
    Bench,
    FakeCell,
    GatedCell,
    assert_same,
    expected,
    last_of,
    running_engine,
    score_of,
)

INPUTS = [np.array(one, np.int64) for one in ([1], [2, 3, 4, 5, 6, 0, 1], [5, 5])]


class Calls:
    """What is called back, in order."""

    def __init__(self) -> None:
        self.ended: list[Gather] = []

    def done(self, gather: Gather) -> None:
        self.ended.append(gather)


def start(
    bench: Bench, calls: Calls, inputs: list[NDArray[np.int64]] = INPUTS, deadline: float | None = None
) -> Gather:
    gather = Gather(bench.engine, calls.done)
    gather.submit(inputs, Goal.LAST, Caller(deadline))
    return gather


def rights(inputs: list[NDArray[np.int64]] = INPUTS) -> list[NDArray[np.float32]]:
    return [expected(last_of(one.tolist()))[0] for one in inputs]


def test_one_call_brings_every_result_in_the_order_of_the_inputs() -> None:
    bench, calls = Bench(), Calls()
    gather = start(bench, calls)
    bench.tick_until_idle()
    assert calls.ended == [gather]
    assert gather.error is None
    assert_same(gather.results, rights())


def test_nothing_is_called_before_the_last_result() -> None:
    bench, calls = Bench(), Calls()
    start(bench, calls)
    bench.tick()  # the short ones have ended
    assert calls.ended == []


def test_first_failure_is_called_once_and_cancels_the_rest() -> None:
    bench, calls = Bench(slots=1, cell=FakeCell(failures=[0])), Calls()
    gather = start(bench, calls)
    bench.tick_until_idle()
    assert calls.ended == [gather]
    assert isinstance(gather.error, ModelFailure)
    assert bench.engine.active == 0
    assert len(bench.cell.runs) == 1


def test_failures_after_the_first_are_dropped() -> None:
    bench, calls = Bench(cell=FakeCell(failures=[0])), Calls()
    gather = start(bench, calls)
    bench.tick_until_idle()
    assert calls.ended == [gather]


def test_cancelled_gather_calls_nothing_and_frees_its_rows() -> None:
    bench, calls = Bench(slots=1), Calls()
    gather = start(bench, calls)
    bench.tick()
    gather.cancel()
    bench.tick_until_idle()
    assert calls.ended == []
    assert bench.engine.active == 0


def test_cancelling_after_the_end_changes_nothing() -> None:
    bench, calls = Bench(), Calls()
    gather = start(bench, calls)
    bench.tick_until_idle()
    gather.cancel()
    assert_same(gather.results, rights())


def test_full_queue_starts_nothing() -> None:
    bench, calls = Bench(max_waiting=2), Calls()
    with pytest.raises(Overloaded):
        start(bench, calls)
    assert not bench.tick()
    assert calls.ended == []


# Awaited.


async def test_collect_returns_last_outputs_in_the_order_of_its_inputs() -> None:
    async with running_engine() as engine:
        assert_same(await collect(engine, INPUTS, Goal.LAST, ANYONE), rights())


async def test_collect_returns_scores_in_the_order_of_its_inputs() -> None:
    inputs = [one for one in INPUTS if len(one) > 1]
    async with running_engine() as engine:
        assert_same(
            await collect(engine, inputs, Goal.SCORE, ANYONE),
            [expected(score_of(one.tolist()))[0] for one in inputs],
        )


async def test_cancelled_caller_frees_rows_while_the_engine_runs() -> None:
    cell = GatedCell()
    async with running_engine(cell, slots=1) as engine:
        task = asyncio.create_task(collect(engine, INPUTS, Goal.LAST, ANYONE))
        await asyncio.to_thread(cell.is_inside.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cell.gate.set()
        assert_same(await collect(engine, INPUTS[:1], Goal.LAST, ANYONE), rights(INPUTS[:1]))
        # The row inside the gate when its caller left, and the new one: the two that waited behind it never
        # ran.
        assert len(cell.runs) == 2


async def test_failure_reaches_the_caller() -> None:
    async with running_engine(FakeCell(failures=[0])) as engine:
        with pytest.raises(ModelFailure):
            await collect(engine, INPUTS, Goal.LAST, ANYONE)


async def test_passed_deadline_reaches_the_caller() -> None:
    async with running_engine() as engine:
        with pytest.raises(DeadlineExceeded):
            await collect(engine, INPUTS, Goal.LAST, Caller(0.0))


async def test_full_queue_reaches_the_caller_at_once() -> None:
    with pytest.raises(Overloaded):
        await collect(Bench(max_waiting=2).engine, INPUTS, Goal.LAST, ANYONE)
