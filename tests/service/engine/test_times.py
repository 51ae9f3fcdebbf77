"""Tests of the times that the engine stamps on rows, on a clock driven by hand, and of traces, which are told
of a call's rows.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from service.engine.request import Caller, Goal, Request, Row
from service.engine.sampling import Sampling
from service.engine.streaming import open_stream, run_all, run_one
from service.errors import Overloaded
from service.observability.traced import Answered, Asked, TracedRow
from tests.service.engine.fakes import PATIENCE_S, Bench, generation_of, last_of, running_engine, score_of

INPUTS = [np.array(one, np.int64) for one in ([1], [2, 3, 4, 5, 6, 0, 1], [5, 5])]
REQUESTS = [Request(one, Goal.LAST) for one in INPUTS]
PROMPT = [index % 7 for index in range(40)]


def times_of(row: Row) -> tuple[float, float, float]:
    return row.times.admitted_at, row.times.prefilled_at, row.times.ended_at


def run(bench: Bench, *rows: Row) -> None:
    """Run rows to the end, each turn at a second of its own, the first at 1."""
    bench.submit(*rows)
    while True:
        bench.now += 1
        if not bench.tick():
            return


@pytest.mark.parametrize(
    ("row", "times"),
    [
        pytest.param(last_of(PROMPT[:8]), (1, 0, 2), id="LAST ends with its second chunk"),
        pytest.param(score_of(PROMPT[:9]), (1, 0, 2), id="SCORE ends with its second chunk"),
        pytest.param(
            generation_of(PROMPT[:9], 3), (1, 2, 5), id="GENERATE samples three tokens after its prompt"
        ),
        pytest.param(generation_of(PROMPT[:1], 3), (1, 0, 3), id="a prompt of one token is not prefilled"),
    ],
)
def test_row_is_stamped_as_it_goes_on(row: Row, times: tuple[float, float, float]) -> None:
    run(Bench(chunk=4), row)
    assert times_of(row) == times


def test_row_that_waits_is_admitted_when_the_one_before_has_ended() -> None:
    first, second = generation_of(PROMPT[:1], 3), last_of(PROMPT[:4])
    run(Bench(slots=1, chunk=4), first, second)
    assert first.times.ended_at == 3
    assert times_of(second) == (4, 0, 4)


def test_prompt_that_is_cached_has_no_prefill() -> None:
    bench, first, second = (
        Bench(chunk=4, prompt_cache_bytes=1 << 20),
        generation_of(PROMPT, 2),
        generation_of(PROMPT, 2),
    )
    run(bench, first)
    run(bench, second)
    assert second.times.admitted_at == second.times.prefilled_at > first.times.ended_at


def test_preemption_moves_no_stamp() -> None:
    long, other, bench = (
        [generation_of(PROMPT[:1], 60) for _ in range(2)],
        last_of(PROMPT[:4], client="another"),
        Bench(slots=2, chunk=4),
    )
    bench.submit(*long)
    bench.now = 1.0
    bench.tick()
    run(bench, other)
    assert bench.metrics.paused.value
    assert [one.times.admitted_at for one in long] == [1, 1]


def test_row_whose_caller_leaves_has_an_end() -> None:
    row, bench = generation_of(PROMPT, 50), Bench(chunk=4)
    bench.submit(row)
    bench.now = 1.0
    bench.tick()
    bench.cancel(row)
    bench.now = 2.0
    bench.tick()
    assert times_of(row) == (1, 0, 2)


class Told:
    """A trace that keeps the rows that it is told of."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def add(self, rows: Sequence[TracedRow]) -> None:
        self.rows.extend(rows)

    def serve(self, model: str, version: int, task: str) -> None:
        raise AssertionError(f"the engine knows no models, found {model} {version} {task}")

    def ask(self, asked: Asked) -> None:
        raise AssertionError(f"the engine knows no options, found {asked}")

    def answer(self, answered: Answered) -> None:
        raise AssertionError(f"the engine knows no tokens, found {answered}")


async def test_trace_is_told_of_answers_and_streams() -> None:
    told = Told()
    caller = Caller(trace=told)
    async with asyncio.timeout(PATIENCE_S), running_engine() as engine:
        await run_all(engine, REQUESTS, caller)
        await run_one(engine, Request(INPUTS[1], Goal.LAST, keeps_state=True), caller)
        request = Request(INPUTS[1], Goal.GENERATE, Sampling(seed=1), 3)
        async with open_stream(engine, request, caller, 100) as stream:
            assert sum([len(batch.ids) async for batch in stream]) == 3
    assert [one.request.goal for one in told.rows] == [Goal.LAST] * 4 + [Goal.GENERATE]
    times = [one.times for one in told.rows]
    assert all(one.submitted_at <= one.admitted_at <= one.ended_at for one in times)


async def test_trace_is_not_told_of_what_was_refused() -> None:
    told = Told()
    with pytest.raises(Overloaded):
        await run_all(Bench(max_waiting=1).group, REQUESTS, Caller(trace=told))
    assert told.rows == []
