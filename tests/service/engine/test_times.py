"""The times that the engine stamps on sequences, on a clock driven by hand, and who is told of a call's
sequences.
"""

import asyncio

import numpy as np
import pytest

from service.engine.delivery import Start, generate, state_after
from service.engine.gather import collect
from service.engine.sampling import Sampling
from service.engine.sequence import Caller, Goal, Sequence
from service.errors import Overloaded
from tests.service.engine.fakes import PATIENCE_S, Bench, generation_of, last_of, running_engine, score_of

INPUTS = [np.array(one, np.int64) for one in ([1], [2, 3, 4, 5, 6, 0, 1], [5, 5])]
PROMPT = [index % 7 for index in range(40)]


def times_of(sequence: Sequence) -> tuple[float, float, float]:
    return sequence.seated_at, sequence.prefilled_at, sequence.ended_at


def run(bench: Bench, *sequences: Sequence) -> None:
    """To the end, each turn at a second of its own, the first at 1."""
    bench.submit(*sequences)
    while True:
        bench.now += 1
        if not bench.tick():
            return


@pytest.mark.parametrize(
    ("sequence", "times"),
    [
        pytest.param(last_of(PROMPT[:8]), (1, 0, 2), id="LAST ends with its second chunk"),
        pytest.param(score_of(PROMPT[:9]), (1, 0, 2), id="SCORE ends with its second chunk"),
        pytest.param(
            generation_of(PROMPT[:9], 3), (1, 2, 5), id="GENERATE samples three tokens after its prompt"
        ),
        pytest.param(generation_of(PROMPT[:1], 3), (1, 0, 3), id="a prompt of one token is not prefilled"),
    ],
)
def test_sequence_is_stamped_as_it_goes_on(sequence: Sequence, times: tuple[float, float, float]) -> None:
    run(Bench(chunk=4), sequence)
    assert times_of(sequence) == times


def test_sequence_that_waits_is_seated_when_the_one_before_has_ended() -> None:
    first, second = generation_of(PROMPT[:1], 3), last_of(PROMPT[:4])
    run(Bench(slots=1, chunk=4), first, second)
    assert first.ended_at == 3
    assert times_of(second) == (4, 0, 4)


def test_prompt_that_is_known_has_no_prefill() -> None:
    bench, first, second = (
        Bench(chunk=4, prompt_cache_bytes=1 << 20),
        generation_of(PROMPT, 2),
        generation_of(PROMPT, 2),
    )
    run(bench, first)
    run(bench, second)
    assert second.seated_at == second.prefilled_at > first.ended_at


def test_prompt_that_another_runs_is_prefilled_with_it() -> None:
    first, second = generation_of(PROMPT, 2), generation_of(PROMPT, 2)
    run(Bench(chunk=4), first, second)
    assert second.prefilled_at == first.prefilled_at > second.seated_at == 1


def test_pause_moves_no_stamp() -> None:
    long, other, bench = (
        [generation_of(PROMPT[:1], 60) for _ in range(2)],
        last_of(PROMPT[:4]),
        Bench(slots=2, chunk=4),
    )
    other.client = "another"
    bench.submit(*long)
    bench.now = 1.0
    bench.tick()
    run(bench, other)
    assert bench.metrics.paused.value
    assert [one.seated_at for one in long] == [1, 1]


def test_sequence_whose_caller_leaves_has_an_end() -> None:
    sequence, bench = generation_of(PROMPT, 50), Bench(chunk=4)
    bench.submit(sequence)
    bench.now = 1.0
    bench.tick()
    bench.engine.cancel([sequence])
    bench.now = 2.0
    bench.tick()
    assert times_of(sequence) == (1, 0, 2)


class Told:
    """Keeps what it is told of."""

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []

    def add(self, sequences: list[Sequence]) -> None:
        self.sequences.extend(sequences)


async def test_trace_is_told_of_answers_and_streams() -> None:
    told = Told()
    caller = Caller(trace=told)
    async with asyncio.timeout(PATIENCE_S), running_engine() as engine:
        await collect(engine, INPUTS, Goal.LAST, caller)
        await state_after(engine, Start(INPUTS[1]), caller)
        async with generate(engine, Start(INPUTS[1]), Sampling(seed=1), 3, False, caller, 100) as stream:
            while not (await stream.take()).is_last:
                pass
    assert [one.goal for one in told.sequences] == [Goal.LAST] * 4 + [Goal.GENERATE]
    assert all(one.submitted_at <= one.seated_at <= one.ended_at for one in told.sequences)


async def test_trace_is_not_told_of_what_was_refused() -> None:
    told = Told()
    with pytest.raises(Overloaded):
        await collect(Bench(max_waiting=1).engine, INPUTS, Goal.LAST, Caller(trace=told))
    assert told.sequences == []
