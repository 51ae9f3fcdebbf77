"""service.engine.delivery and service.engine.gather: answers and streams in asyncio, on engines driven by
hand and in their threads.
"""

import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.delivery import Start, TokenStream, generate, state_after
from service.engine.gather import collect
from service.engine.sampling import Sampling
from service.engine.sequence import ANYONE, Caller, Goal
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
    running_engine,
    unpacked,
)

PROMPT = np.array([1, 2, 3], np.int64)
START = Start(PROMPT)
INPUTS = [np.array(one, np.int64) for one in ([1], [2, 3, 4, 5, 6, 0, 1], [5, 5])]


async def started(awaitable: "asyncio.Task[list[NDArray[np.float32]]]") -> None:
    """Let a task run to its first real wait."""
    await asyncio.sleep(0)
    assert not awaitable.done()


def start_run(
    bench: Bench, goal: Goal = Goal.LAST, deadline: float | None = None
) -> "asyncio.Task[list[NDArray[np.float32]]]":
    return asyncio.create_task(collect(bench.engine, INPUTS, goal, Caller(deadline)))


async def read_all(stream: TokenStream) -> list[Generated]:
    tokens: list[Generated] = []
    while not tokens or not tokens[-1].is_last:
        tokens.extend(unpacked(await stream.take()))
    return tokens


# Many to one and scoring.


async def test_many_runs_at_a_time_each_get_their_own_answers() -> None:
    async with running_engine(max_waiting=500) as engine:
        found = await asyncio.gather(
            *(collect(engine, [np.arange(1 + index % 9) % 7], Goal.LAST, ANYONE) for index in range(100))
        )
    for index, [answer] in enumerate(found):
        assert_same([answer], expected(last_of(np.arange(1 + index % 9) % 7)))


async def test_cancelled_run_cancels_its_sequences() -> None:
    bench = Bench(slots=1)
    task = start_run(bench)
    await started(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not bench.tick()
    assert bench.engine.active == 0


async def test_failure_of_one_sequence_cancels_the_rest_of_its_run() -> None:
    bench = Bench(slots=1, cell=FakeCell(failures=[0]))
    task = start_run(bench)
    await started(task)
    bench.tick()
    with pytest.raises(ModelFailure):
        await task
    assert not bench.tick()


# Streams.


async def test_stream_gives_the_tokens_of_the_sequence_alone() -> None:
    async with (
        running_engine() as engine,
        generate(engine, START, Sampling(seed=1), 20, True, ANYONE, 100) as stream,
    ):
        assert_same(await read_all(stream), expected(generation_of(PROMPT, 20)))


async def test_stream_gathers_what_came_since_it_was_last_read() -> None:
    bench = Bench()
    async with generate(bench.engine, START, Sampling(seed=1), 10, True, ANYONE, 100) as stream:
        bench.tick()  # the prompt
        bench.tick()
        first = await stream.take()
        for _ in range(4):
            bench.tick()
        assert (len(first.ids), len((await stream.take()).ids)) == (1, 4)


async def test_take_waits_for_the_first_token() -> None:
    bench = Bench()
    async with generate(bench.engine, START, Sampling(seed=1), 10, True, ANYONE, 100) as stream:
        taking = asyncio.create_task(stream.take())
        await asyncio.sleep(0)
        assert not taking.done()
        bench.tick_until_idle()
        assert_same(unpacked(await taking), expected(generation_of(PROMPT, 10)))


async def test_leaving_the_context_ends_the_generation() -> None:
    bench = Bench(slots=1)
    async with generate(bench.engine, START, Sampling(seed=1), 1000, False, ANYONE, 100):
        bench.tick()
        assert bench.engine.active == 1
    assert not bench.tick()
    assert bench.engine.active == 0


async def test_cancelled_reader_ends_the_generation() -> None:
    bench = Bench(slots=1)

    async def read() -> None:
        async with generate(bench.engine, START, Sampling(seed=1), 1000, False, ANYONE, 100) as stream:
            await stream.take()

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    bench.tick()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not bench.tick()
    assert bench.engine.active == 0


async def test_tokens_from_before_a_failure_are_taken_before_it_is_raised() -> None:
    bench = Bench(cell=FakeCell(failures=[3]))
    async with generate(bench.engine, START, Sampling(seed=1), 10, True, ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert_same(unpacked(await stream.take()), expected(generation_of(PROMPT, 10))[:2])
        with pytest.raises(ModelFailure):
            await stream.take()
        with pytest.raises(ModelFailure):
            await stream.take()


async def test_generation_is_refused_when_the_queue_is_full() -> None:
    bench = Bench(slots=1, max_waiting=1)
    bench.submit(last_of([1]))
    with pytest.raises(Overloaded):
        async with generate(bench.engine, START, Sampling(), 1, False, ANYONE, 1):
            pass


@pytest.mark.parametrize("most_backlog", [1, 2, 7])
async def test_slow_reader_wakes_its_paused_row(most_backlog: int) -> None:
    """The engine's thread sleeps while the only row is paused; taking must wake it, or this never ends."""
    async with (
        running_engine() as engine,
        generate(engine, START, Sampling(seed=1), 40, True, ANYONE, most_backlog) as stream,
    ):
        tokens: list[Generated] = []
        while not tokens or not tokens[-1].is_last:
            tokens.extend(unpacked(await stream.take()))
            await asyncio.sleep(0)
        assert_same(tokens, expected(generation_of(PROMPT, 40)))


async def test_stream_that_nobody_reads_leaves_others_their_slots() -> None:
    async with (
        running_engine(slots=1) as engine,
        generate(engine, START, Sampling(seed=1), 10_000, False, ANYONE, 2),
    ):
        assert_same(await collect(engine, [PROMPT], Goal.LAST, ANYONE), expected(last_of(PROMPT)))


async def test_sleeping_engine_wakes_for_the_deadline_of_a_paused_stream() -> None:
    deadline = time.monotonic() + 0.1
    async with (
        running_engine() as engine,
        generate(engine, START, Sampling(seed=1), 10_000, False, Caller(deadline), 2) as stream,
    ):
        with pytest.raises(DeadlineExceeded):
            # Nothing is taken before the error: only the engine's own timer can end this.
            await asyncio.wait_for(failure_of(stream), PATIENCE_S)


async def failure_of(stream: TokenStream) -> None:
    """Wait, without reading a token, until the stream has failed, then read to its error."""
    failed = asyncio.Event()
    receive = stream.receive

    def watched(result: object) -> None:
        receive(result)
        if isinstance(result, BaseException):
            failed.set()

    stream.receive = watched  # type: ignore[method-assign]
    await failed.wait()
    while True:
        await stream.take()


# The thread.


async def test_stopped_engine_has_no_thread() -> None:
    async with running_engine() as engine:
        await collect(engine, INPUTS, Goal.LAST, ANYONE)
        assert any(thread.name == "engine-fake" for thread in threading.enumerate())
    assert not any(thread.name == "engine-fake" for thread in threading.enumerate())


def test_engine_that_never_started_can_be_stopped() -> None:
    Bench().engine.stop()


async def test_engine_stops_while_streams_run() -> None:
    async with (
        running_engine() as engine,
        generate(engine, START, Sampling(seed=1), 10_000_000, False, ANYONE, 10_000_000) as stream,
    ):
        await stream.take()


# Errors of the engine's own: nobody may be left without an answer.


async def test_fault_answers_running_and_waiting_sequences_alike() -> None:
    cell = GatedCell()
    cell.is_faulty = True
    async with running_engine(cell, slots=2) as engine:
        runs = [asyncio.create_task(collect(engine, [PROMPT], Goal.LAST, ANYONE)) for _ in range(5)]
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
                await collect(engine, [PROMPT], Goal.LAST, ANYONE)
        assert engine.has_failed


# States.


async def test_last_lump_brings_the_state_before_its_last_token() -> None:
    bench = Bench()
    async with generate(
        bench.engine, START, Sampling(seed=1), 10, False, ANYONE, 100, keeps_state=True
    ) as stream:
        bench.tick_until_idle()
        tokens = await stream.take()
    assert tokens.is_last
    assert tokens.state is not None
    continued = asyncio.ensure_future(
        state_after(bench.engine, Start(np.array(tokens.ids[-1:], np.int64), 12, tokens.state), ANYONE)
    )
    whole = asyncio.ensure_future(
        state_after(bench.engine, Start(np.array([*PROMPT.tolist(), *tokens.ids], np.int64)), ANYONE)
    )
    await asyncio.sleep(0)
    bench.tick_until_idle()
    assert_same(list(await continued), list(await whole))


async def test_position_before_the_inputs_counts_for_the_sampling() -> None:
    bench = Bench()
    whole = generation_of([*PROMPT.tolist(), 4], 10)
    state = asyncio.ensure_future(state_after(bench.engine, START, ANYONE))
    await asyncio.sleep(0)
    bench.run(whole)
    start = Start(np.array([4], np.int64), len(PROMPT), await state)
    async with generate(bench.engine, start, Sampling(seed=1), 10, True, ANYONE, 100) as stream:
        bench.tick_until_idle()
        assert_same(unpacked(await stream.take()), expected(whole))


async def test_state_that_nobody_waits_for_frees_its_row() -> None:
    bench = Bench(chunk=1)
    waiting = asyncio.ensure_future(state_after(bench.engine, START, ANYONE))
    await asyncio.sleep(0)
    bench.tick()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not bench.tick()
    assert bench.engine.active == 0


async def test_state_that_fails_raises_and_leaves_nothing() -> None:
    bench = Bench(cell=FakeCell(failures=[0]))
    waiting = asyncio.ensure_future(state_after(bench.engine, START, ANYONE))
    await asyncio.sleep(0)
    bench.tick_until_idle()
    with pytest.raises(ModelFailure):
        await waiting
    assert bench.engine.active == 0
