"""service.engine.prompts: what is kept, what is found, who waits for whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.prompts import LEAST_STEPS, PromptCache, Prompts
from service.engine.sequence import Sequence, StateRow
from tests.service.engine.fakes import generation_of, last_of, score_of

PROMPT = [index % 7 for index in range(LEAST_STEPS + 5)]
LARGE = 1 << 20
token_lists = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def tokens_of(tokens: list[int]) -> NDArray[np.int64]:
    return np.array(tokens, np.int64)


def state_of(number: float) -> StateRow:
    return (np.full(4, number, np.float32),)


def number_in(state: StateRow) -> float:
    return float(state[0][0])


def size_of_one() -> int:
    """Bytes that a prompt of one token counts."""
    cache = PromptCache(LARGE)
    cache.keep(tokens_of([0]), state_of(0))
    return cache.size_bytes


def test_kept_prompt_counts_more_than_its_numbers() -> None:
    assert size_of_one() > tokens_of([0]).nbytes + state_of(0)[0].nbytes


@given(st.lists(token_lists, max_size=12), token_lists)
def test_longest_kept_prefix_is_found(kept: list[list[int]], wanted: list[int]) -> None:
    cache = PromptCache(LARGE)
    for number, tokens in enumerate(kept):
        cache.keep(tokens_of(tokens), state_of(number))
    known = cache.find(tokens_of(wanted))
    right = max((tokens for tokens in kept if tokens == wanted[: len(tokens)]), key=len, default=None)
    if right is None:
        assert known is None
    else:
        assert known is not None
        assert known.steps == len(right)
        assert number_in(known.state) == len(kept) - 1 - kept[::-1].index(right)


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 5))
def test_cache_keeps_the_most_recently_used_within_its_bytes(uses: list[int], places: int) -> None:
    """Each use looks a prompt up and keeps it; a plain list says which ones should be left."""
    size = size_of_one()
    cache, recent = PromptCache(places * size), list[int]()
    for one in uses:
        known = cache.find(tokens_of([one]))
        assert (known is not None) == (one in recent)
        cache.keep(tokens_of([one]), state_of(one))
        recent = [*(other for other in recent if other != one), one][-places:]
        assert len(cache) == len(recent)
        assert cache.size_bytes == len(recent) * size


def test_prompt_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = PromptCache(size_of_one())
    cache.keep(tokens_of([1]), state_of(1))
    cache.keep(tokens_of([2] * 100), state_of(2))
    assert cache.find(tokens_of([2] * 100)) is None
    assert cache.find(tokens_of([1])) is not None


def test_cache_of_no_bytes_keeps_nothing() -> None:
    cache = PromptCache(0)
    cache.keep(tokens_of([1, 2]), state_of(1))
    assert cache.find(tokens_of([1, 2])) is None


def test_order_of_tokens_matters() -> None:
    cache = PromptCache(LARGE)
    cache.keep(tokens_of([1, 2]), state_of(1))
    assert cache.find(tokens_of([2, 1])) is None


# Who waits for whom.


def prompts(most_bytes: int = LARGE) -> Prompts:
    return Prompts(most_bytes)


def same(count: int) -> list[Sequence]:
    return [generation_of(PROMPT, 3) for _ in range(count)]


def test_equal_prompts_follow_the_one_that_is_being_run() -> None:
    line, [leader, first, second] = prompts(), same(3)
    line.lead(leader)
    assert line.follow(first)
    assert line.follow(second)
    assert list(line.followers()) == [first, second]
    assert line.finish(leader, state_of(1)) == [first, second]
    assert line.num_following == 0


def test_finished_prompt_is_known_to_those_who_come_later() -> None:
    line, [leader, late] = prompts(), same(2)
    line.lead(leader)
    line.finish(leader, state_of(5))
    known = line.find(late)
    assert known is not None
    assert (known.steps, number_in(known.state)) == (late.prefill_steps, 5)
    assert not line.follow(late)


def test_those_who_wait_for_a_prompt_that_ends_early_are_given_back() -> None:
    line, [leader, first, second] = prompts(), same(3)
    line.lead(leader)
    line.follow(first)
    line.follow(second)
    assert line.end(leader) == [first, second]
    assert not line.follow(first)


def test_follower_that_ends_waits_no_more() -> None:
    line, [leader, first, second] = prompts(), same(3)
    line.lead(leader)
    line.follow(first)
    line.follow(second)
    assert line.end(first) == []
    assert line.finish(leader, state_of(1)) == [second]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(generation_of([*PROMPT[1:], 0], 3), id="another prompt"),
        pytest.param(generation_of(PROMPT[: LEAST_STEPS - 1], 3), id="a prompt too short to look up"),
        pytest.param(last_of(PROMPT), id="no generation"),
        pytest.param(score_of(PROMPT), id="a scored text"),
    ],
)
def test_others_do_not_follow(other: Sequence) -> None:
    line, [leader] = prompts(), same(1)
    line.lead(leader)
    assert not line.follow(other)
    line.finish(leader, state_of(1))
    assert line.find(other) is None


def test_last_token_is_no_part_of_the_prompt_that_is_run() -> None:
    """A step tick feeds it, so prompts that differ there alone share a run."""
    line, [leader] = prompts(), same(1)
    line.lead(leader)
    assert line.follow(generation_of([*PROMPT[:-1], 6 - PROMPT[-1]], 3))
