"""Tests of service.engine.prompt_cache: what is kept, what is found, and which requests have a prompt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.prompt_cache import MAX_ENTRIES, MIN_STEPS, PromptCache, prompt_of
from service.engine.request import Goal, Request, StateRow
from tests.service.engine.fakes import generation_of, last_of, score_of

PROMPT = [index % 7 for index in range(MIN_STEPS + 5)]
LARGE = 1 << 20
token_lists = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def tokens_of(tokens: list[int]) -> NDArray[np.int64]:
    return np.array(tokens, np.int64)


def state_of(number: float) -> StateRow:
    return (np.full(4, number, np.float32),)


def number_in(state: StateRow) -> float:
    return float(state[0][0])


def size_of_one() -> int:
    """Return the bytes that a prompt of one token counts."""
    cache = PromptCache(LARGE)
    cache.keep(tokens_of([0]), state_of(0))
    return cache.size_bytes


def test_kept_prompt_counts_more_bytes_than_its_numbers() -> None:
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
    """Look a prompt up and keep it at each use; a plain list says which ones should be left."""
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


# Which requests have a prompt.


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        pytest.param(generation_of(PROMPT, 3).request, PROMPT[:-1], id="all but its last token"),
        pytest.param(generation_of(PROMPT[:MIN_STEPS], 3).request, None, id="too short to look up"),
        pytest.param(
            generation_of(PROMPT[: MIN_STEPS + 1], 3).request, PROMPT[:MIN_STEPS], id="just long enough"
        ),
        pytest.param(last_of(PROMPT).request, None, id="no generation"),
        pytest.param(score_of(PROMPT).request, None, id="a scored text"),
        pytest.param(
            Request(tokens_of(PROMPT), Goal.GENERATE, max_tokens=3, state=state_of(1)),
            None,
            id="one that goes on from a state",
        ),
    ],
)
def test_prompt_is_what_chunk_ticks_run_for_a_generation(asked: Request, prompt: list[int] | None) -> None:
    found = prompt_of(asked)
    assert (None if found is None else found.tolist()) == prompt


def test_kept_prompt_is_replaced_by_the_same_prompt() -> None:
    cache = PromptCache(LARGE)
    cache.keep(tokens_of([1, 2]), state_of(1))
    size = cache.size_bytes
    cache.keep(tokens_of([1, 2]), state_of(2))
    known = cache.find(tokens_of([1, 2, 3]))
    assert known is not None
    assert number_in(known.state) == 2
    assert (len(cache), cache.size_bytes) == (1, size)


# Scopes.


def test_prompt_is_found_in_its_own_scope_alone() -> None:
    cache = PromptCache(LARGE)
    cache.keep(tokens_of([1, 2]), state_of(1), "a")
    assert cache.find(tokens_of([1, 2]), "a") is not None
    assert cache.find(tokens_of([1, 2]), "b") is None
    assert cache.find(tokens_of([1, 2])) is None


def test_shared_cache_finds_prompts_of_every_scope() -> None:
    cache = PromptCache(LARGE, is_shared=True)
    cache.keep(tokens_of([1, 2]), state_of(1), "a")
    assert cache.find(tokens_of([1, 2, 3]), "b") is not None


def test_scope_that_keeps_much_drives_out_its_own_prompts() -> None:
    cache = PromptCache(4 * size_of_one())
    cache.keep(tokens_of([0]), state_of(0), "few")
    for number in range(50):
        cache.keep(tokens_of([number]), state_of(number), "many")
    assert cache.find(tokens_of([0]), "few") is not None
    assert [cache.find(tokens_of([one]), "many") is not None for one in range(46, 50)] == [False, *[True] * 3]
    assert (len(cache), cache.size_bytes) == (4, 4 * size_of_one())


def test_scopes_without_prompts_are_forgotten_the_least_recently_used_first() -> None:
    cache = PromptCache(3 * size_of_one())
    for scope in "abcde":
        cache.keep(tokens_of([1]), state_of(1), scope)
        cache.find(tokens_of([1]), "a")
    assert list(cache._parts) == ["d", "e", "a"]


def test_prompts_are_bounded_in_number() -> None:
    cache = PromptCache(LARGE)
    for number in range(MAX_ENTRIES + 10):
        cache.keep(tokens_of([number]), state_of(1))
    assert len(cache) == MAX_ENTRIES
