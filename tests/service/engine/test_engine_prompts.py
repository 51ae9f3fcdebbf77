"""service.engine.engine on the fake cell: a prompt is run once, whoever asks for it, and changes nobody's
answer.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.sampling import Sampling
from service.engine.sequence import Sequence
from service.errors import ModelFailure
from tests.service.engine.fakes import Bench, FakeCell, assert_answered, generation_of, last_of, received

PROMPT = [index % 7 for index in range(40)]
KEPT = 1 << 20


def bench_of(slots: int = 4, prompt_cache_bytes: int = KEPT, **others: Any) -> Bench:
    return Bench(slots, chunk=4, prompt_cache_bytes=prompt_cache_bytes, **others)


def stream(seed: int, prompt: list[int] = PROMPT, max_tokens: int = 5) -> Sequence:
    return generation_of(prompt, max_tokens, Sampling(seed=seed))


def prefilled(bench: Bench) -> int:
    """Time steps that chunk ticks have run, padding included."""
    return sum(rows * steps for rows, steps in bench.cell.runs if steps > 1)


def test_same_prompt_later_runs_no_prefill() -> None:
    bench, first, second = bench_of(), stream(1), stream(2)
    bench.run(first)
    before = prefilled(bench)
    bench.run(second)
    assert prefilled(bench) == before
    assert_answered(first, second)


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_many_texts_from_one_prompt_cost_one_prefill(slots: int) -> None:
    bench, alone = bench_of(slots), bench_of(slots)
    alone.run(stream(0))
    texts = [stream(seed) for seed in range(20)]
    bench.run(*texts)
    assert prefilled(bench) == prefilled(alone)
    assert_answered(*texts)


def test_longer_prompt_runs_what_is_new_alone() -> None:
    bench, first, longer = bench_of(), stream(1), stream(2, [*PROMPT, 3, 1, 4, 1, 5, 9 % 7])
    bench.run(first)
    before = prefilled(bench)
    bench.run(longer)
    assert prefilled(bench) - before <= 8
    assert_answered(longer)


def test_hits_are_counted() -> None:
    bench = bench_of()
    bench.run(stream(1), stream(2), stream(3))
    bench.run(stream(4), stream(5, [1, 2, 3]))
    assert bench.metrics.prompt_cache_hits.value == 3


def test_without_a_cache_prompts_that_come_together_still_share_a_run() -> None:
    bench, alone = bench_of(prompt_cache_bytes=0), bench_of()
    alone.run(stream(0))
    texts = [stream(1), stream(2)]
    bench.run(*texts)
    assert prefilled(bench) == prefilled(alone)
    assert_answered(*texts)


def test_those_who_wait_go_on_when_the_one_they_wait_for_leaves() -> None:
    bench, leader, follower = bench_of(), stream(1), stream(2)
    bench.submit(leader, follower)
    bench.tick()
    bench.engine.cancel([leader])
    bench.tick_until_idle()
    assert received(leader) == []
    assert_answered(follower)


def test_those_who_wait_go_on_when_a_tick_of_the_one_they_wait_for_fails() -> None:
    bench, leader, follower = bench_of(cell=FakeCell(failures=[1])), stream(1), stream(2)
    bench.run(leader, follower)
    assert [type(one) for one in received(leader)] == [ModelFailure]
    assert_answered(follower)


def test_one_who_waits_can_leave() -> None:
    bench, leader, gone, follower = bench_of(), stream(1), stream(2), stream(3)
    bench.submit(leader, gone, follower)
    bench.tick()
    bench.engine.cancel([gone])
    bench.tick_until_idle()
    assert received(gone) == []
    assert_answered(leader, follower)


def test_one_who_waits_past_its_deadline_is_told() -> None:
    bench, late = bench_of(), generation_of(PROMPT, 5, deadline=1.0)
    bench.submit(stream(1), late)
    bench.tick()
    bench.now = 1.0
    bench.tick()
    assert len(received(late)) == 1


def test_those_who_wait_for_a_prompt_count_as_waiting() -> None:
    bench = bench_of(slots=4, max_waiting=3)
    bench.submit(stream(1), stream(2), stream(3))
    bench.tick()
    assert bench.metrics.waiting_sequences.value == 2
    assert bench.engine.active == 1


def test_fault_answers_those_who_wait_for_a_prompt() -> None:
    bench, texts = bench_of(), [stream(1), stream(2)]
    bench.submit(*texts)
    bench.tick()
    bench.run_until_fault()
    assert [type(received(one)[-1]) for one in texts] == [ModelFailure] * 2


@settings(max_examples=60)
@given(
    slots=st.integers(1, 4),
    most_bytes=st.sampled_from([0, 900, 5000, KEPT]),
    script=st.lists(
        st.tuples(st.integers(17, 40), st.integers(0, 2), st.integers(0, 6), st.booleans()),
        min_size=1,
        max_size=12,
    ),
)
def test_shared_prompts_change_no_answer(
    slots: int, most_bytes: int, script: list[tuple[int, int, int, bool]]
) -> None:
    """Prefixes of one text with different ends, arriving at any time beside other work, some leaving
    early.
    """
    bench, texts, leaving = bench_of(slots, prompt_cache_bytes=most_bytes), list[Sequence](), list[Sequence]()
    for seed, (length, end, ticks, leaves) in enumerate(script):
        one = stream(seed, [*PROMPT[:length], end], 4)
        (leaving if leaves else texts).append(one)
        bench.submit(one, last_of(PROMPT[: 1 + seed % 5]))
        for _ in range(ticks):
            bench.tick()
        if leaves:
            bench.engine.cancel([one])
    bench.tick_until_idle()
    assert_answered(*texts)
    assert bench.engine.active == 0
