"""service.tasks.stops."""

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.tasks.stops import StopFilter

# Few letters and short strings, so that stop strings overlap, nest and nearly occur all the time.
texts = st.text("ab", max_size=30)
stop_sets = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


class Cut(NamedTuple):
    """What should come of a text: what is released, and after how many characters a stop string was
    complete.
    """

    text: str
    stopped_after: int | None


def naive(text: str, stops: list[str]) -> Cut:
    """Look at every prefix: the first that ends with a stop string is where the text ends, before the longest
    of those.
    """
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return Cut(text[: end - max(map(len, found))], end)
    return Cut(text, None)


def split(text: str, places: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


def push_all(pieces: list[str], stops: list[str]) -> Cut:
    chosen = StopFilter(stops)
    released, consumed = "", 0
    for piece in pieces:
        text, stopped_after = chosen.push(piece)
        released += text
        if stopped_after is not None:
            return Cut(released, consumed + stopped_after)
        consumed += len(piece)
    return Cut(released + chosen.flush(), None)


@settings(max_examples=400)
@given(texts, stop_sets, st.lists(st.integers(0, 99), max_size=8))
def test_text_equals_a_naive_reference_for_any_split(text: str, stops: list[str], places: list[int]) -> None:
    assert push_all(split(text, places), stops) == naive(text, stops)


@given(texts, stop_sets)
def test_released_text_is_never_taken_back(text: str, stops: list[str]) -> None:
    """What is out after each character is a prefix of what is out in the end, whatever comes."""
    chosen, released = StopFilter(stops), ""
    final = naive(text, stops).text
    for character in text:
        piece, stopped_after = chosen.push(character)
        released += piece
        assert final.startswith(released)
        if stopped_after is not None:
            break


@given(texts, stop_sets)
def test_nothing_is_held_back_that_cannot_become_a_stop(text: str, stops: list[str]) -> None:
    released, stopped_after = (chosen := StopFilter(stops)).push(text)
    if stopped_after is None:
        held = text[len(released) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
        assert chosen.flush() == held


@settings(max_examples=400)
@given(texts, stop_sets)
def test_skipped_text_leaves_what_the_same_text_pushed_leaves(text: str, stops: list[str]) -> None:
    skipping, pushing = StopFilter(stops), StopFilter(stops)
    held = skipping.skip(text)
    released, stopped_after = pushing.push(text)
    assert (held is None) == (stopped_after is not None)
    if held is not None:
        assert held == len(text) - len(released)
        assert skipping.flush() == pushing.flush()


def test_without_stops_everything_passes_at_once() -> None:
    assert StopFilter([]).push("abc") == ("abc", None)


@pytest.mark.parametrize(
    ("text", "stops", "cut"),
    [
        pytest.param("one. two", ["."], Cut("one", 4), id="plain"),
        pytest.param("xabcx", ["bc", "abc"], Cut("x", 4), id="of two that end together the longest"),
        pytest.param(
            "xabcd", ["abcd", "b"], Cut("xa", 3), id="the one completed first, though it starts later"
        ),
        pytest.param("aaab", ["aab"], Cut("a", 4), id="start inside a failed start"),
        pytest.param("ab", ["abc"], Cut("ab", None), id="unfinished at the end"),
        pytest.param("ünïx", ["ï"], Cut("ün", 3), id="not ASCII"),
    ],
)
def test_example(text: str, stops: list[str], cut: Cut) -> None:
    assert push_all(list(text), stops) == cut


def test_flush_forgets_what_it_gave() -> None:
    chosen = StopFilter(["abc"])
    chosen.push("xab")
    assert (chosen.flush(), chosen.flush()) == ("ab", "")
