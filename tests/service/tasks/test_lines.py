"""service.tasks.lines."""

from itertools import pairwise
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from service.tasks.lines import Lines

Item = TypeVar("Item")


def popped(lines: Lines[Item]) -> list[Item]:
    found = []
    while (item := lines.pop()) is not None:
        found.append(item)
    return found


def lines_of(items: str) -> Lines[str]:
    """Items such as a1, whose client is a."""
    lines: Lines[str] = Lines()
    for item in items.split():
        lines.append(item[0], item)
    return lines


def test_one_client_is_served_in_its_order() -> None:
    assert popped(lines_of("a1 a2 a3")) == ["a1", "a2", "a3"]


def test_clients_take_turns() -> None:
    assert popped(lines_of("a1 a2 a3 b1 c1 b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_client_that_was_served_goes_behind_those_who_wait() -> None:
    lines = lines_of("a1 a2 b1")
    assert lines.pop() == "a1"
    lines.append("c", "c1")
    assert popped(lines) == ["b1", "a2", "c1"]


def test_removed_item_costs_no_turn() -> None:
    lines = lines_of("a1 a2 b1 c1")
    lines.remove("a", "a1")
    lines.remove("b", "b1")
    assert popped(lines) == ["a2", "c1"]


def test_removing_what_does_not_wait_changes_nothing() -> None:
    lines = lines_of("a1 b1")
    lines.remove("a", "a2")
    lines.remove("c", "c1")
    assert popped(lines) == ["a1", "b1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), unique=True))
def test_between_two_items_of_a_client_each_other_one_is_served_at_most_once(
    items: list[tuple[str, int]],
) -> None:
    lines: Lines[tuple[str, int]] = Lines()
    for item in items:
        lines.append(item[0], item)
    order = popped(lines)
    assert sorted(order) == sorted(items)
    for client in "abc":
        assert [item for item in order if item[0] == client] == [item for item in items if item[0] == client]
        places = [place for place, item in enumerate(order) if item[0] == client]
        for start, end in pairwise(places):
            between = [item[0] for item in order[start + 1 : end]]
            assert len(set(between)) == len(between)
