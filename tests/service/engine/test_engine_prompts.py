"""Tests of service.engine.engine on the fake cell: a prompt that is cached is not run again, and the cache
changes nobody's answer.

Equal prompts in flight are run each by itself.
"""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.request import Row
from service.engine.sampling import Sampling
from service.errors import ModelFailure
from tests.service.engine.fakes import (
    Bench,
    FakeCell,
    assert_answered,
    generation_of,
    kinds_of,
    last_of,
    received,
)

PROMPT = [index % 7 for index in range(40)]
KEPT = 1 << 20


def bench_of(slots: int = 4, prompt_cache_bytes: int = KEPT, **others: Any) -> Bench:
    return Bench(slots, chunk=4, prompt_cache_bytes=prompt_cache_bytes, **others)


def stream(seed: int, prompt: list[int] = PROMPT, max_tokens: int = 5) -> Row:
    return generation_of(prompt, max_tokens, Sampling(seed=seed))


def prefilled(bench: Bench) -> int:
    """Return the time steps that chunk ticks have run, padding included."""
    return sum(rows * steps for rows, steps in bench.cell.runs if steps > 1)


def cost_of_one() -> int:
    """Return the time steps that chunk ticks run for one prompt."""
    bench = bench_of()
    bench.run(stream(0))
    return prefilled(bench)


def test_same_prompt_later_runs_no_prefill() -> None:
    bench, first, second = bench_of(), stream(1), stream(2)
    bench.run(first)
    before = prefilled(bench)
    bench.run(second)
    assert prefilled(bench) == before
    assert_answered(first, second)


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_many_texts_from_one_prompt_cost_one_prefill_for_each_slot_at_most(slots: int) -> None:
    bench, texts = bench_of(slots), [stream(seed) for seed in range(20)]
    bench.run(*texts)
    assert prefilled(bench) <= slots * cost_of_one()
    assert_answered(*texts)


def test_many_texts_from_a_cached_prompt_cost_no_prefill() -> None:
    bench, texts = bench_of(8), [stream(seed) for seed in range(20)]
    bench.run(stream(99))
    before = prefilled(bench)
    bench.run(*texts)
    assert prefilled(bench) == before
    assert_answered(*texts)


def test_longer_prompt_runs_only_what_is_new() -> None:
    bench, first, longer = bench_of(), stream(1), stream(2, [*PROMPT, 3, 1, 4, 1, 5, 9 % 7])
    bench.run(first)
    before = prefilled(bench)
    bench.run(longer)
    assert prefilled(bench) - before <= 8
    assert_answered(longer)


def test_prompts_that_differ_in_their_last_token_share_a_cached_state() -> None:
    """A step tick feeds the last token, so it is no part of what chunk ticks run."""
    bench, other = bench_of(), stream(2, [*PROMPT[:-1], 6 - PROMPT[-1]])
    bench.run(stream(1))
    before = prefilled(bench)
    bench.run(other)
    assert prefilled(bench) == before
    assert_answered(other)


def test_prompt_of_another_scope_is_run_again() -> None:
    bench, first, second = bench_of(), stream(1), stream(2)
    bench.run(first)
    second.request = second.request._replace(cache_scope="other")
    bench.run(second)
    assert prefilled(bench) == 2 * cost_of_one()
    assert bench.metrics.prompt_cache_hits.value == 0
    assert_answered(first, second)


def test_shared_prompt_of_another_scope_runs_no_prefill() -> None:
    bench, first, second = bench_of(shares_prompts=True), stream(1), stream(2)
    bench.run(first)
    second.request = second.request._replace(cache_scope="other")
    bench.run(second)
    assert prefilled(bench) == cost_of_one()


def test_hits_are_counted() -> None:
    bench = bench_of()
    bench.run(stream(1))
    bench.run(stream(2), stream(3))
    bench.run(stream(4), stream(5, [1, 2, 3]))
    assert bench.metrics.prompt_cache_hits.value == 3


def test_without_a_cache_every_prompt_is_run() -> None:
    bench = bench_of(prompt_cache_bytes=0)
    bench.run(stream(1))
    bench.run(stream(2))
    assert prefilled(bench) == 2 * cost_of_one()
    assert bench.metrics.prompt_cache_hits.value == 0


def test_equal_prompts_in_flight_do_not_depend_on_each_other() -> None:
    bench, leaving, late, staying = bench_of(), stream(1), stream(2), stream(3)
    late.deadline = 1.0
    bench.submit(leaving, late, staying)
    bench.tick()
    bench.cancel(leaving)
    bench.now = 1.0
    bench.tick_until_idle()
    assert received(leaving) == []
    assert len(received(late)) == 1
    assert_answered(staying)


def test_state_of_a_failed_tick_is_not_cached() -> None:
    bench, failed, after = bench_of(cell=FakeCell(failures=[1])), stream(1), stream(2)
    bench.run(failed)
    assert kinds_of(failed) == [ModelFailure]
    bench.run(after)
    assert bench.metrics.prompt_cache_hits.value == 0
    assert_answered(after)


@settings(max_examples=60)
@given(
    slots=st.integers(1, 4),
    max_bytes=st.sampled_from([0, 900, 5000, KEPT]),
    script=st.lists(
        st.tuples(st.integers(17, 40), st.integers(0, 2), st.integers(0, 6), st.booleans()),
        min_size=1,
        max_size=12,
    ),
)
def test_cached_prompts_change_no_answer(
    slots: int, max_bytes: int, script: list[tuple[int, int, int, bool]]
) -> None:
    """Submit prefixes of one text with different ends at any time beside other work; some leave early."""
    bench, texts, leaving = bench_of(slots, prompt_cache_bytes=max_bytes), list[Row](), list[Row]()
    for seed, (length, end, ticks, leaves) in enumerate(script):
        one = stream(seed, [*PROMPT[:length], end], 4)
        (leaving if leaves else texts).append(one)
        bench.submit(one, last_of(PROMPT[: 1 + seed % 5]))
        for _ in range(ticks):
            bench.tick()
        if leaves:
            bench.cancel(one)
    bench.tick_until_idle()
    assert_answered(*texts)
    bench.assert_empty()
