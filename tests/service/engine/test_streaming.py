"""Tests of service.engine.streaming: answers and streams in asyncio, on engines driven by hand and in their
threads.
"""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from service.engine.request import ANYONE, Caller, Final, Goal, Request, StateRow, TokenBatch
from service.engine.sampling import Sampling
from service.engine.streaming import TokenStream, deliver, open_stream, run_all, run_one
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    PATIENCE_S,
    Bench,
    FakeCell,
    GatedCell,
    Generated,
    assert_same,
    expected,
    generation_of,
    last_of,
    received,
    running_engine,
    score_of,
    unpacked,
)

PROMPT = np.array([1, 2, 3], np.int64)
INPUTS = [np.array(one, np.int64) for one in ([1], [2, 3, 4, 5, 6, 0, 1], [5, 5])]
REQUESTS = [Request(one, Goal.LAST) for one in INPUTS]
RIGHTS = [expected(last_of(one))[0] for one in INPUTS]


def generate(max_tokens: int, wants_logprobs: bool = True, **others: Any) -> Request:
    return Request(PROMPT, Goal.GENERATE, Sampling(seed=1), max_tokens, wants_logprobs, **others)


def start_run(bench: Bench, requests: list[Request] = REQUESTS) -> "asyncio.Task[list[Any]]":
    return asyncio.create_task(run_all(bench.group, requests, ANYONE))


async def reach_first_wait(task: "asyncio.Task[Any]") -> None:
    """Let a task run to its first real wait."""
    await asyncio.sleep(0)
    assert not task.done()


async def read_all(stream: TokenStream) -> list[Generated]:
    return [token async for batch in stream for token in unpacked(batch)]


# Many requests to one list of answers.


async def test_run_all_returns_outputs_in_the_order_of_its_requests() -> None:
    bench = Bench()
    task = start_run(bench)
    await reach_first_wait(task)
    bench.tick_until_idle()
    assert_same(await task, RIGHTS)


async def test_run_all_waits_for_the_last_output() -> None:
    bench = Bench()
    task = start_run(bench)
    await reach_first_wait(task)
    bench.tick()  # the short ones have ended
    await asyncio.sleep(0)
    assert not task.done()
    bench.tick_until_idle()
    assert_same(await task, RIGHTS)


async def test_first_failure_is_raised_and_cancels_the_rest() -> None:
    bench = Bench(slots=1, cell=FakeCell(failures=[0]))
    task = start_run(bench)
    await reach_first_wait(task)
    bench.tick()
    with pytest.raises(ModelFailure):
        await task
    assert not bench.tick()
    bench.assert_empty()
    assert len(bench.cell.runs) == 1


async def test_failures_after_the_first_are_dropped() -> None:
    bench = Bench(cell=FakeCell(failures=[0]))
    task = start_run(bench)
    await reach_first_wait(task)
    bench.tick()
    assert len(bench.posts[0]) == len(REQUESTS)
    with pytest.raises(ModelFailure):
        await task


async def test_outputs_after_a_failure_are_dropped() -> None:
    """They were on their way when the caller was told of the failure."""
    bench = Bench(slots=1, cell=FakeCell(failures=[0]))
    task = start_run(bench)
    await reach_first_wait(task)
    bench.tick_until_idle()
    with pytest.raises(ModelFailure):
        await task


async def test_cancelled_run_cancels_its_rows() -> None:
    bench = Bench(slots=1)
    task = start_run(bench)
    await reach_first_wait(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bench.tick()
    bench.assert_empty()
    assert bench.posts == []


async def test_full_queue_starts_nothing() -> None:
    bench = Bench(max_waiting=2)
    with pytest.raises(Overloaded):
        await run_all(bench.group, REQUESTS, ANYONE)
    assert not bench.tick()


async def test_many_runs_at_a_time_each_get_their_own_answers() -> None:
    async with running_engine(max_waiting=500) as engine:
        inputs = [np.arange(1 + index % 9) % 7 for index in range(100)]
        found = await asyncio.gather(*(run_one(engine, Request(one, Goal.LAST), ANYONE) for one in inputs))
    for one, answer in zip(inputs, found, strict=True):
        assert_same([answer], expected(last_of(one)))


async def test_run_all_returns_last_outputs_from_a_running_engine() -> None:
    async with running_engine() as engine:
        assert_same(await run_all(engine, REQUESTS, ANYONE), RIGHTS)


async def test_run_all_returns_scores_in_the_order_of_its_requests() -> None:
    inputs = [one for one in INPUTS if len(one) > 1]
    async with running_engine() as engine:
        found = await run_all(engine, [Request(one, Goal.SCORE) for one in inputs], ANYONE)
    assert_same(found, [expected(score_of(one))[0] for one in inputs])


async def test_cancelled_caller_frees_rows_while_the_engine_runs() -> None:
    cell = GatedCell()
    async with running_engine(cell, slots=1) as engine:
        task = asyncio.create_task(run_all(engine, REQUESTS, ANYONE))
        await asyncio.to_thread(cell.is_inside.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cell.gate.set()
        assert_same(await run_all(engine, REQUESTS[:1], ANYONE), RIGHTS[:1])
        # The row inside the gate when its caller left, and the new one: the two that waited behind it never
        # ran.
        assert len(cell.runs) == 2


async def test_failure_reaches_the_caller() -> None:
    async with running_engine(FakeCell(failures=[0])) as engine:
        with pytest.raises(ModelFailure):
            await run_all(engine, REQUESTS, ANYONE)


async def test_passed_deadline_reaches_the_caller() -> None:
    async with running_engine() as engine:
        with pytest.raises(DeadlineExceeded):
            await run_all(engine, REQUESTS, Caller(0.0))


async def test_full_queue_reaches_the_caller_at_once() -> None:
    with pytest.raises(Overloaded):
        await run_all(Bench(max_waiting=2).group, REQUESTS, ANYONE)


# Streams.


async def test_stream_gives_the_tokens_of_the_row_alone() -> None:
    async with running_engine() as engine, open_stream(engine, generate(20), ANYONE, 100) as stream:
        assert_same(await read_all(stream), expected(generation_of(PROMPT, 20)))


async def test_stream_ends_after_its_last_token() -> None:
    bench = Bench()
    async with open_stream(bench.group, generate(4), ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert (await anext(stream)).is_last
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_stream_gathers_what_came_since_it_was_last_read() -> None:
    bench = Bench()
    async with open_stream(bench.group, generate(10), ANYONE, 100) as stream:
        bench.tick()  # the prompt
        bench.tick()
        first = await anext(stream)
        for _ in range(4):
            bench.tick()
        assert (len(first.ids), len((await anext(stream)).ids)) == (1, 4)


async def test_reader_waits_for_the_first_token() -> None:
    bench = Bench()
    async with open_stream(bench.group, generate(10), ANYONE, 100) as stream:
        reading = asyncio.create_task(read_all(stream))
        await reach_first_wait(reading)
        bench.tick_until_idle()
        assert_same(await reading, expected(generation_of(PROMPT, 10)))


async def test_leaving_the_context_ends_the_generation() -> None:
    bench = Bench(slots=1)
    async with open_stream(bench.group, generate(1000), ANYONE, 100):
        bench.tick()
        assert bench.active == 1
    assert not bench.tick()
    bench.assert_empty()


async def test_cancelled_reader_ends_the_generation() -> None:
    bench = Bench(slots=1)

    async def read() -> None:
        async with open_stream(bench.group, generate(1000), ANYONE, 100) as stream:
            await anext(stream)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    bench.tick()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not bench.tick()
    bench.assert_empty()


async def test_tokens_from_before_a_failure_are_taken_before_it_is_raised() -> None:
    bench = Bench(cell=FakeCell(failures=[3]))
    async with open_stream(bench.group, generate(10), ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert_same(unpacked(await anext(stream)), expected(generation_of(PROMPT, 10))[:2])
        for _ in range(2):
            with pytest.raises(ModelFailure):
                await anext(stream)


async def test_generation_is_refused_when_the_queue_is_full() -> None:
    bench = Bench(slots=1, max_waiting=1)
    bench.submit(last_of([1]))
    with pytest.raises(Overloaded):
        async with open_stream(bench.group, generate(1), ANYONE, 1):
            pass


@pytest.mark.parametrize("max_backlog", [1, 2, 7])
async def test_slow_reader_wakes_its_suspended_row(max_backlog: int) -> None:
    """The engine's thread sleeps while the only row is suspended; taking must wake it, or this never ends."""
    async with running_engine() as engine, open_stream(engine, generate(40), ANYONE, max_backlog) as stream:
        tokens: list[Generated] = []
        async for batch in stream:
            tokens.extend(unpacked(batch))
            await asyncio.sleep(0)
        assert_same(tokens, expected(generation_of(PROMPT, 40)))


async def test_stream_that_nobody_reads_leaves_others_their_slots() -> None:
    async with running_engine(slots=1) as engine, open_stream(engine, generate(10_000), ANYONE, 2):
        assert_same(await run_all(engine, [Request(PROMPT, Goal.LAST)], ANYONE), expected(last_of(PROMPT)))


async def test_sleeping_engine_wakes_for_the_deadline_of_a_suspended_stream() -> None:
    caller = Caller(time.monotonic() + 0.1)
    async with running_engine() as engine, open_stream(engine, generate(10_000), caller, 2) as stream:
        with pytest.raises(DeadlineExceeded):
            # Nothing is taken before the error: only the engine's own timer can end this.
            await asyncio.wait_for(failure_of(stream), PATIENCE_S)


async def failure_of(stream: TokenStream) -> None:
    """Wait, without reading a token, until the stream has failed, then read to its error."""
    failed = asyncio.Event()
    receive = stream.receive

    def watched(output: object) -> None:
        receive(output)
        if isinstance(output, BaseException):
            failed.set()

    stream.receive = watched  # type: ignore[method-assign]
    await failed.wait()
    await read_all(stream)


def test_outputs_are_delivered_in_order() -> None:
    rows = [generation_of([1], 5) for _ in range(2)]
    batches = [TokenBatch([number], [0.5], False) for number in range(4)]
    deliver([(rows[number % 2], batch) for number, batch in enumerate(batches)])
    for number, row in enumerate(rows):
        assert row.receiver.received == [  # type: ignore[attr-defined]
            Generated(number, 0.5, False),
            Generated(number + 2, 0.5, False),
        ]


# Errors of the engine's own: nobody may be left without an answer.


async def test_fault_ends_running_and_waiting_rows_alike() -> None:
    cell = GatedCell()
    cell.is_faulty = True
    async with running_engine(cell, slots=2) as engine:
        runs = [asyncio.create_task(run_all(engine, [Request(PROMPT, Goal.LAST)], ANYONE)) for _ in range(5)]
        await asyncio.sleep(0)
        cell.gate.set()
        found = await asyncio.gather(*runs, return_exceptions=True)
    assert [type(one) for one in found] == [ModelFailure] * 5


async def test_engine_with_a_fault_takes_nothing_more() -> None:
    cell = FakeCell()
    cell.is_faulty = True
    async with running_engine(cell) as engine:
        for _ in range(3):
            with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
                await run_all(engine, REQUESTS, ANYONE)
        assert engine.has_failed


# States.


async def start_state(bench: Bench, request: Request) -> "asyncio.Task[Final]":
    task = asyncio.create_task(run_one(bench.group, request, ANYONE))
    await reach_first_wait(task)
    return task


async def state_after(bench: Bench, request: Request) -> StateRow:
    task = await start_state(bench, request)
    bench.tick_until_idle()
    return (await task).state


def read(tokens: list[int], state: StateRow | None = None) -> Request:
    return Request(np.array(tokens, np.int64), Goal.LAST, state=state, keeps_state=True)


async def test_last_batch_brings_the_state_before_its_last_token() -> None:
    bench = Bench()
    async with open_stream(bench.group, generate(10, False, keeps_state=True), ANYONE, 100) as stream:
        bench.tick_until_idle()
        tokens = await anext(stream)
    assert tokens.is_last
    assert tokens.state is not None
    continued = await state_after(bench, read(tokens.ids[-1:], tokens.state))
    assert_same(list(continued), list(await state_after(bench, read([*PROMPT.tolist(), *tokens.ids]))))


async def test_state_of_gathered_batches_is_that_of_the_last() -> None:
    bench = Bench()
    async with open_stream(bench.group, generate(3, keeps_state=True), ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert sum(isinstance(output, TokenBatch) for outputs in bench.posts for _, output in outputs) == 3
        assert (await anext(stream)).state is bench.posts[-1][-1][1].state


async def test_position_before_the_inputs_counts_for_the_sampling() -> None:
    bench, whole = Bench(), generation_of([*PROMPT.tolist(), 4], 10)
    state = await state_after(bench, read(PROMPT.tolist()))
    rest = Request(np.array([4]), Goal.GENERATE, Sampling(seed=1), 10, True, state, position=len(PROMPT))
    async with open_stream(bench.group, rest, ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert_same(unpacked(await anext(stream)), expected(whole))


async def test_state_that_nobody_waits_for_frees_its_row() -> None:
    bench = Bench(chunk=1)
    waiting = await start_state(bench, read(PROMPT.tolist()))
    bench.tick()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not bench.tick()
    bench.assert_empty()


async def test_state_that_fails_raises_and_leaves_nothing() -> None:
    bench = Bench(cell=FakeCell(failures=[0]))
    waiting = await start_state(bench, read(PROMPT.tolist()))
    bench.tick_until_idle()
    with pytest.raises(ModelFailure):
        await waiting
    bench.assert_empty()


class Broken:
    """A receiver that raises."""

    backlog, max_backlog = 0, 1

    def receive(self, output: Any) -> None:  # noqa: ARG002
        raise ZeroDivisionError("a fault of the receiver")


def test_fault_of_one_receiver_leaves_the_outputs_of_the_others() -> None:
    faulty, good = last_of([1]), last_of([2])
    faulty.receiver = Broken()
    output = np.ones(2, np.float32)
    deliver([(faulty, output), (good, output)])
    assert_same(received(good), [output])
