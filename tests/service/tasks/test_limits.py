"""service.tasks.limits."""

import pytest

from service.errors import InvalidArgument
from service.tasks.limits import check_count, check_texts, slices_of
from tests.service.builders import LIMITS


@pytest.mark.parametrize("count", [1, 3, 5])
def test_count_within_its_bounds_passes(count: int) -> None:
    check_count("field", "things", count, maximum=5)


@pytest.mark.parametrize(
    ("count", "minimum", "message"),
    [
        (0, 1, "field: expected at least 1 things, found 0"),
        (1, 2, "field: expected at least 2 things, found 1"),
        (6, 0, "field: expected at most 5 things, found 6"),
    ],
)
def test_count_outside_its_bounds_names_field_bound_and_count(count: int, minimum: int, message: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_count("field", "things", count, maximum=5, minimum=minimum)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        pytest.param([], "texts", id="no text"),
        pytest.param(["a"] * (LIMITS.items + 1), "texts", id="too many texts"),
        pytest.param(["a", "b" * (LIMITS.text_length + 1)], "texts[1]", id="too long a text"),
    ],
)
def test_texts_outside_the_limits_name_their_field(texts: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        check_texts(texts, LIMITS)
    assert refusal.value.violations[0].field == field


def test_texts_at_the_limits_pass() -> None:
    check_texts(["a" * LIMITS.text_length] * LIMITS.items, LIMITS)


def test_lengths_of_texts_are_returned() -> None:
    assert check_texts(["a", "bcd"], LIMITS) == [1, 3]


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [
        pytest.param([3], [[0]], id="one"),
        pytest.param([30], [[0]], id="one that is longer than a slice"),
        pytest.param([3, 7, 1], [[0, 1], [2]], id="as many as fit"),
        pytest.param([11, 1, 1, 12, 1], [[0], [1, 2], [3], [4]], id="long ones alone"),
        pytest.param([0] * 5, [[0, 1, 2, 3, 4]], id="empty ones"),
    ],
)
def test_slices_hold_each_text_once_and_few_characters(lengths: list[int], parts: list[list[int]]) -> None:
    indexes = list(range(len(lengths)))
    assert [indexes[part] for part in slices_of(lengths, 10)] == parts
