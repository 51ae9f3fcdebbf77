"""service.engine.feed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.feed import Feed

LENGTHS = st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=40)


@given(LENGTHS)
def test_rows_find_their_own_steps_however_often_room_was_made(drawn: list[tuple[int, bool]]) -> None:
    """Each row's inputs are numbers of its own; some rows stay while others are forgotten at the next
    compaction.
    """
    feed, spans = Feed(None), dict[int, tuple[int, int]]()
    for number, (length, stays) in enumerate(drawn):
        inputs = np.full(length, number, np.int64)
        if not feed.has_room(length):
            starts, lengths = (
                np.array([span[index] for span in spans.values()], np.int64) for index in (0, 1)
            )
            moved = feed.compact(starts, lengths, length)
            spans = {
                one: (start, lengths_one)
                for one, start, lengths_one in zip(spans, moved.tolist(), lengths.tolist(), strict=True)
            }
        start = feed.add(inputs)
        if stays:
            spans[number] = (start, length)
        for one, (begin, count) in spans.items():
            assert set(feed.take(np.arange(begin, begin + count)).tolist()) == {one}


def test_features_keep_their_width() -> None:
    feed = Feed(2)
    inputs = np.arange(6, dtype=np.float32).reshape(3, 2)
    start = feed.add(inputs)
    np.testing.assert_array_equal(feed.take(np.arange(start, start + 3)), inputs)


def test_steps_are_written_where_they_are_wanted() -> None:
    feed = Feed(None)
    start = feed.add(np.arange(10, 16))
    into = np.zeros((2, 2), np.int64)
    feed.take(start + np.array([[0, 1], [4, 5]]), into)
    assert into.tolist() == [[10, 11], [14, 15]]


@pytest.mark.parametrize("features", [None, 3])
def test_positions_past_the_end_are_valid_input(features: int | None) -> None:
    feed = Feed(features)
    feed.add(np.ones(2, np.int64) if features is None else np.ones((2, features), np.float32))
    taken = feed.take(np.array([5, 10**9]))
    assert len(taken) == 2
    assert (taken == 0).all()
