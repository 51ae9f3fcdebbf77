"""Tests of service.engine.deadlines."""

from hypothesis import given
from hypothesis import strategies as st

from service.engine.deadlines import Deadlines
from service.engine.request import Row
from tests.service.engine.fakes import last_of

operations = st.lists(
    st.tuples(st.sampled_from(["add", "add", "discard", "expire", "expire_some"]), st.integers(0, 20)),
    max_size=60,
)


@given(operations)
def test_random_use_agrees_with_a_plain_list(drawn: list[tuple[str, int]]) -> None:
    deadlines, watched, gone, now = Deadlines(), list[Row](), list[Row](), 0
    for operation, number in drawn:
        if operation == "add":
            row = last_of([1], deadline=None if number == 20 else float(now + number))
            deadlines.add(row)
            (gone if number == 20 else watched).append(row)
        elif operation == "discard" and watched:
            row = watched.pop(number % len(watched))
            deadlines.discard(row)
            gone.append(row)
        elif operation in ("expire", "expire_some"):
            now += number
            expired = []
            for row in deadlines.take_expired(float(now)):
                expired.append(row)
                if operation == "expire_some" and len(expired) == 2:
                    break
            due = sorted(float(row.deadline or 0) for row in watched if (row.deadline or 0) <= now)
            count = min(2, len(due)) if operation == "expire_some" else len(due)
            assert [row.deadline for row in expired] == due[:count]
            watched = [row for row in watched if row not in expired]
            gone += expired
        for row in gone:
            deadlines.discard(row)
        assert len(deadlines) == len(watched)
        left = [row.deadline for row in watched if row.deadline is not None]
        assert deadlines.next() == min(left, default=None)


def test_rows_with_one_deadline_expire_in_the_order_in_which_they_came() -> None:
    deadlines, rows = Deadlines(), [last_of([1], deadline=1.0) for _ in range(20)]
    for row in rows:
        deadlines.add(row)
    assert list(deadlines.take_expired(1.0)) == rows


def test_entries_of_rows_that_are_over_are_bounded() -> None:
    deadlines = Deadlines()
    deadlines.add(last_of([1], deadline=1.0))
    for _ in range(5000):
        deadlines.add(row := last_of([1], deadline=100.0))
        deadlines.discard(row)
    assert len(deadlines) == 1
    assert len(deadlines._heap) <= 1100
