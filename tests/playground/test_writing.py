"""seqserve.playground.writing: settings, links, and tokens of pieces."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqserve.playground.writing import (
    MAX_LINK,
    MAX_TOKENS,
    Draft,
    Settings,
    WrongSetting,
    draft_of,
    fragment_of,
    settings_of,
    tokens_of,
)
from seqserve.results import TextPiece

settings = st.builds(
    Settings,
    max_tokens=st.integers(0, MAX_TOKENS),
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 100),
    top_p=st.floats(0.01, 1),
    seed=st.none() | st.integers(0, 2**64 - 1),
    stop=st.lists(st.text(min_size=1, max_size=5), max_size=3).map(tuple),
)
drafts = st.builds(
    Draft,
    prompt=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    model=st.text("abc-", min_size=1, max_size=8),
    version=st.integers(0, 2**32 - 1),
    settings=st.lists(settings, min_size=1, max_size=2).map(tuple),
)


@given(drafts)
def test_link_holds_the_draft(draft: Draft) -> None:
    fragment = fragment_of(draft)
    assert fragment.isascii()
    assert draft_of(fragment) == draft


@given(st.text(max_size=100) | st.text('{}[]":,0123456789prompt', max_size=100))
def test_any_other_fragment_is_none_or_a_sentence(text: str) -> None:
    assert draft_of("#other" + text) is None
    with pytest.raises(WrongSetting, match=r"\.$"):
        draft_of("#share=" + text)


def test_long_links_are_refused_both_ways() -> None:
    with pytest.raises(WrongSetting, match="shorten the prompt"):
        fragment_of(Draft("x" * MAX_LINK, "m", 1, (Settings(),)))
    with pytest.raises(WrongSetting, match="at most"):
        draft_of("#share=" + "x" * MAX_LINK)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"seed": "seven"}, "seed: expected a whole number"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"seed": 2**64}, "seed: expected a whole number"),
        ({"seed": True}, "seed: expected a whole number"),
        ({"max_tokens": MAX_TOKENS + 1}, "max_tokens: expected a whole number"),
        ({"max_tokens": 1.5}, "max_tokens: expected a whole number"),
        ({"top_k": float("inf")}, "top_k: expected a whole number"),
        ({"temperature": "hot"}, "temperature: expected a number, found 'hot'"),
        ({"stop": "end"}, "stop: expected text"),
        ({"stop": [1]}, "stop: expected text"),
        ({"heat": 1}, "found 'heat' too"),
    ],
)
def test_wrong_setting_is_named(found: Mapping[str, Any], said: str) -> None:
    with pytest.raises(WrongSetting, match=said):
        settings_of(found)


def test_empty_controls_have_their_defaults() -> None:
    empty = dict.fromkeys(("max_tokens", "temperature", "top_k", "top_p", "seed", "stop"))
    assert settings_of(empty) == Settings(max_tokens=0)


def test_seed_keeps_all_of_its_digits() -> None:
    assert settings_of({"seed": str(2**64 - 1)}).seed == 2**64 - 1


def piece(text: str, *logprobs: float) -> TextPiece:
    return TextPiece(text, len(logprobs), logprobs, 7)


def test_characters_have_their_own_probabilities() -> None:
    """The last of three was cut by a stop string."""
    found = tokens_of(piece("ab", -1.0, -2.0, -3.0), are_characters=True)
    assert [(one.text, one.logprob) for one in found] == [("a", -1.0), ("b", -2.0)]


def test_other_tokens_share_their_mean() -> None:
    [found] = tokens_of(piece("some words", -1.0, -2.0), are_characters=False)
    assert (found.text, found.logprob) == ("some words", -1.5)
    assert tokens_of(piece("", -1.0), are_characters=False) == []
    [found] = tokens_of(piece("held back"), are_characters=False)
    assert found.logprob is None
