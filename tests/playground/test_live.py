"""The live chart: a bounded window of outputs, and rows at the chosen rate."""

from hypothesis import given
from hypothesis import strategies as st

from seqserve.playground.live import (
    MAX_LINES,
    MAX_POINTS,
    MAX_RATE,
    MAX_ROWS_A_PUSH,
    MIN_RATE,
    Live,
    bounded_rate,
    rows_due,
)


def test_only_the_newest_points_are_held() -> None:
    live = Live(["a"])
    for position in range(1, MAX_POINTS + 11):
        live.add(position, [[float(position)]])
    assert live.steps == list(range(11, MAX_POINTS + 11))
    assert live.series(["#000"])[0]["data"] == [float(step) for step in live.steps]


def test_answers_of_several_steps_have_the_numbers_of_their_steps() -> None:
    live = Live(["a", "b"])
    live.add(3, [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    live.add(9, [[7.0, 8.0]])
    assert live.steps == [1, 2, 3, 9]
    assert [series["data"] for series in live.series(["#000", "#111"])] == [[1, 3, 5, 7], [2, 4, 6, 8]]


def test_a_wide_row_has_a_bounded_number_of_lines_that_differ() -> None:
    live = Live([str(number) for number in range(100)])
    live.add(1, [[0.0] * 100])
    drawn = live.series(["#000", "#111", "#222", "#333"])
    assert len(drawn) == MAX_LINES
    assert len({(series["color"], series["lineStyle"]["type"]) for series in drawn}) == MAX_LINES


@given(st.floats(MIN_RATE, MAX_RATE), st.integers(1, 500))
def test_rows_are_sent_once_and_never_ahead_of_their_rate(rate: float, total: int) -> None:
    sent, elapsed_s = 0, 0.0
    while sent < total:
        due = rows_due(elapsed_s, rate, sent, total)
        assert 0 <= due <= MAX_ROWS_A_PUSH
        sent += due
        assert sent <= elapsed_s * rate + 1
        elapsed_s += 0.5
    assert sent == total
    assert rows_due(elapsed_s, rate, sent, total) == 0


def test_a_rate_outside_the_bounds_is_moved_to_them() -> None:
    assert [bounded_rate(rate) for rate in (None, -1.0, 5.0, 1e9)] == [MIN_RATE, MIN_RATE, 5.0, MAX_RATE]
