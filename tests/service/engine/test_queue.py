"""Tests of service.engine.queue, most of them against a naive queue of plain lists."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.queue import FairQueue
from service.engine.request import Row, SuspendedRow
from tests.service.engine.fakes import by, last_of

CLIENTS = "abcd"
clients = st.sampled_from(CLIENTS)
operations = st.lists(
    st.tuples(
        st.sampled_from(["append", "append", "append_first", "begun", "take", "take_head", "remove", "all"]),
        clients,
        st.integers(1, 99),
    ),
    max_size=60,
)


@dataclass
class Naive:
    """A queue of plain lists: clients in the order of their turns, each with its line."""

    lines: list[tuple[str, list[Row]]] = field(default_factory=list)

    @property
    def rows(self) -> list[Row]:
        return [row for _, line in self.lines for row in line]

    def line_of(self, client: str) -> list[Row]:
        for name, line in self.lines:
            if name == client:
                return line
        self.lines.append((client, []))
        return self.lines[-1][1]

    def append(self, row: Row) -> None:
        self.line_of(row.client).append(row)

    def append_first(self, row: Row) -> None:
        self.line_of(row.client).insert(0, row)

    def remove(self, row: Row) -> None:
        self.line_of(row.client).remove(row)
        self.lines = [one for one in self.lines if one[1]]

    def take(self, row: Row) -> None:
        self.remove(row)
        self.lines.sort(key=lambda one: one[0] == row.client)  # stable: the client goes last

    def in_turn(self) -> list[Row]:
        found: list[Row] = []
        longest = max((len(line) for _, line in self.lines), default=0)
        for place in range(longest):
            found += [line[place] for _, line in self.lines if place < len(line)]
        return found

    def newest(self, client: str, count: int) -> list[Row]:
        fresh = [row for row in self.rows if row.client == client and not row.has_begun]
        return fresh[::-1][:count]


def queue_of(wanted: str) -> tuple[FairQueue, list[Row]]:
    """Return a queue with a row for each letter, its client, and the rows."""
    queue, rows = FairQueue(), [last_of([1], client=client) for client in wanted]
    for row in rows:
        queue.append(row)
    return queue, rows


def taken(queue: FairQueue) -> str:
    """Take the first row in turn again and again; return their clients."""
    found = ""
    while queue:
        row = next(queue.in_turn())
        queue.take(row)
        found += row.client
    return found


def assert_equal(queue: FairQueue, naive: Naive) -> None:
    queue.check_integrity()
    assert len(queue) == len(naive.rows)
    assert bool(queue) == bool(naive.rows)
    assert list(queue.in_turn()) == naive.in_turn()
    assert list(queue.clients) == [client for client, _ in naive.lines]
    assert queue.steps == sum(row.prefill_steps_left for row in naive.rows)
    for client, line in naive.lines:
        assert queue.first_of(client) is line[0]
    for client in CLIENTS:
        for count in (0, 1, 2, 100):
            assert queue.newest(client, count) == naive.newest(client, count)


@given(operations)
def test_random_use_agrees_with_plain_lists(drawn: list[tuple[str, str, int]]) -> None:
    queue, naive, gone = FairQueue(), Naive(), list[Row]()
    for operation, client, number in drawn:
        if operation in ("append", "append_first", "begun"):
            row = last_of([1] * number, client=client)
            if operation == "begun":
                row.has_begun, row.suspended = True, SuspendedRow(number // 2, None)
            (queue.append_first if operation == "append_first" else queue.append)(row)
            (naive.append_first if operation == "append_first" else naive.append)(row)
        elif operation == "take_head" and client in queue.clients:
            row = queue.first_of(client)
            queue.take(row)
            naive.take(row)
            gone.append(row)
        elif operation in ("take", "remove") and naive.rows:
            row = naive.rows[number % len(naive.rows)]
            (queue.take if operation == "take" else queue.remove)(row)
            (naive.take if operation == "take" else naive.remove)(row)
            gone.append(row)
        elif operation == "all" and number < 10:
            assert queue.take_all() == naive.rows
            gone += naive.rows
            naive = Naive()
        assert_equal(queue, naive)
        assert all(row in queue for row in naive.rows)
        assert not any(row in queue for row in gone)


@given(st.lists(clients, max_size=40))
def test_rows_are_taken_in_the_order_of_turns(wanted: list[str]) -> None:
    queue, _ = queue_of("".join(wanted))
    order = list(queue.in_turn())
    for row in order:
        assert next(queue.in_turn()) is row
        queue.take(row)
    assert not queue


@given(st.lists(clients, max_size=40))
def test_no_client_is_passed_over_more_than_once_by_each_other_client(wanted: list[str]) -> None:
    queue, _ = queue_of("".join(wanted))
    passed: Counter[str] = Counter()
    while queue:
        row = next(queue.in_turn())
        queue.take(row)
        passed.pop(row.client, None)
        passed.update(queue.clients - {row.client})
        assert max(passed.values(), default=0) <= len(CLIENTS) - 1


def test_clients_take_turns() -> None:
    queue, _ = queue_of("aaaabbc")
    assert taken(queue) == "abcabaa"


def test_one_client_is_served_first_come_first_served() -> None:
    queue, rows = queue_of("aaa")
    assert list(queue.in_turn()) == rows


def test_client_that_comes_back_waits_for_its_turn() -> None:
    queue, [first, _] = queue_of("ab")
    queue.take(first)
    queue.append(last_of([1], client="a"))
    assert taken(queue) == "ba"


def test_row_that_returns_to_the_head_of_its_line_takes_no_turn_of_others() -> None:
    queue, _ = queue_of("aab")
    [returning] = by("b", last_of([1]))
    queue.append_first(returning)
    assert queue.first_of("b") is returning
    assert taken(queue) == "abab"


def test_removing_a_row_costs_its_client_no_turn() -> None:
    queue, rows = queue_of("aabb")
    queue.remove(rows[0])
    assert list(queue.in_turn()) == [rows[1], rows[2], rows[3]]


def test_clients_without_waiting_rows_are_forgotten() -> None:
    queue = FairQueue()
    for number in range(100):
        queue.append(row := last_of([1], client=chr(200 + number)))
        queue.take(row)
    assert not queue.clients
    assert not queue._lines


def test_rows_that_have_begun_are_not_among_the_newest() -> None:
    queue, rows = queue_of("aaaa")
    rows[3].has_begun = rows[1].has_begun = True
    assert queue.newest("a", 2) == [rows[2], rows[0]]
    assert queue.newest("b", 2) == []


def test_take_all_empties_every_line() -> None:
    queue, rows = queue_of("aab")
    assert queue.take_all() == rows
    assert (len(queue), queue.steps, list(queue.clients)) == (0, 0, [])


def test_row_waits_only_once() -> None:
    queue, [row] = queue_of("a")
    with pytest.raises(AssertionError, match="a row waits once"):
        queue.append(row)
    queue.check_integrity()


def test_removing_a_row_that_does_not_wait_is_an_error() -> None:
    queue, _ = queue_of("a")
    for client in "ab":
        with pytest.raises(KeyError):
            queue.remove(last_of([1], client=client))
    queue.check_integrity()


def test_check_integrity_refuses_rows_that_are_over() -> None:
    queue, rows = queue_of("ab")
    rows[1].is_over = True
    with pytest.raises(AssertionError, match="a row that is over waits"):
        queue.check_integrity()
