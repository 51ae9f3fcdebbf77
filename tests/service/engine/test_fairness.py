"""service.engine.fairness and what service.engine.scheduler makes of it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from service.engine.fairness import LEAST_TURNS, Lines, longest_held, make_room
from service.engine.scheduler import Claim, Scheduler
from service.engine.sequence import PausedRow, Sequence
from tests.service.engine.fakes import generation_of, last_of

clients = st.sampled_from(["a", "b", "c"])


def of(client: str, steps: int = 1, submitted_at: float = 0.0) -> Sequence:
    sequence = last_of([1] * steps)
    sequence.client, sequence.submitted_at = client, submitted_at
    return sequence


def queued(scheduler: Scheduler, wanted: str) -> list[Sequence]:
    sequences = [of(client) for client in wanted]
    for sequence in sequences:
        scheduler.enqueue(sequence)
    return sequences


def admitted(scheduler: Scheduler) -> str:
    found = ""
    while (sequence := scheduler.admit(can_prefill=True)) is not None:
        found += sequence.client
    return found


class FakeQueue:
    """A queue that is asked by hand."""

    def __init__(self, wanted: str) -> None:
        self.lines = Lines()
        for number, client in enumerate(wanted):
            self.lines.append(of(client, submitted_at=number))

    def waiting_by_client(self) -> dict[str, int]:
        return self.lines.counts()

    def newest_waiting(self, client: str, most: int) -> list[Sequence]:
        return self.lines.newest(client, most)

    def drop(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            assert self.lines.remove(sequence)


def test_clients_take_turns() -> None:
    scheduler = Scheduler(20)
    queued(scheduler, "aaaabbc")
    assert admitted(scheduler) == "abcabaa"


def test_one_client_is_served_first_come_first_served() -> None:
    scheduler = Scheduler(3)
    sequences = queued(scheduler, "aaa")
    assert [scheduler.admit(can_prefill=True) for _ in range(3)] == sequences


def test_client_that_comes_back_waits_for_its_turn() -> None:
    scheduler = Scheduler(20)
    queued(scheduler, "ab")
    assert scheduler.admit(can_prefill=True) is not None
    queued(scheduler, "a")
    assert admitted(scheduler) == "ba"


def test_clients_without_waiting_sequences_are_forgotten() -> None:
    scheduler = Scheduler(1)
    for number in range(100):
        queued(scheduler, chr(200 + number))
        admitted(scheduler)
        scheduler.release(chr(200 + number))
    assert not scheduler.lines.clients
    assert not scheduler._held


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "first", "take", "remove", "end", "drop_over"]),
            clients,
            st.integers(1, 9),
        ),
        max_size=60,
    )
)
def test_lines_count_what_is_in_them(operations: list[tuple[str, str, int]]) -> None:
    lines, inside = Lines(), list[Sequence]()
    for operation, client, number in operations:
        if operation in ("append", "first"):
            inside.append(sequence := of(client, number))
            (lines.append if operation == "append" else lines.append_first)(sequence)
        elif operation == "take" and client in lines.clients:
            inside.remove(lines.take(client))
        elif operation == "remove" and inside:
            assert lines.remove(inside.pop(number % len(inside)))
        elif operation == "end" and inside:
            inside[number % len(inside)].is_over = True
        elif operation == "drop_over":
            lines.drop_over()
            inside = [one for one in inside if not one.is_over]
        assert len(lines) == len(inside)
        assert lines.steps == sum(len(one.inputs) for one in inside)
        assert lines.counts() == Counter(one.client for one in inside)
        assert all(lines.ahead_of(one) <= (len(lines), lines.steps) for one in "abc")


@given(st.lists(clients, max_size=40))
def test_nobody_is_passed_over_more_than_once_by_each_other_client(wanted: list[str]) -> None:
    scheduler = Scheduler(100)
    queued(scheduler, "".join(wanted))
    passed: Counter[str] = Counter()
    while (sequence := scheduler.admit(can_prefill=True)) is not None:
        passed.pop(sequence.client, None)
        passed.update(scheduler.lines.clients)
        assert max(passed.values(), default=0) <= 3


# Claims on rows.


def test_client_without_rows_claims_one_of_those_of_the_client_with_most() -> None:
    scheduler = Scheduler(3)
    queued(scheduler, "aaa")
    admitted(scheduler)
    queued(scheduler, "ab")
    assert scheduler.is_contended
    assert scheduler.claim([], can_prefill=True) == Claim("b", "a", wants_prefill=False)


def test_equal_parts_and_those_that_differ_by_one_are_left_alone() -> None:
    scheduler = Scheduler(3)
    queued(scheduler, "aba")
    admitted(scheduler)
    queued(scheduler, "aab")
    assert scheduler.claim([], can_prefill=True) is None


def test_one_client_alone_is_no_contention() -> None:
    scheduler = Scheduler(1)
    queued(scheduler, "aaa")
    admitted(scheduler)
    assert not scheduler.is_contended


def test_row_in_prefill_is_claimed_where_nothing_else_makes_room() -> None:
    scheduler, rows = Scheduler(9), [of("a"), of("a")]
    queued(scheduler, "aaab")
    assert scheduler.claim(rows, can_prefill=False) == Claim("b", "a", wants_prefill=True)


def test_row_that_can_generate_is_not_held_up_by_one_that_cannot_prefill() -> None:
    scheduler = Scheduler(9)
    queued(scheduler, "a")
    ready = generation_of([1], 5)
    ready.client = "b"
    scheduler.enqueue(ready)
    assert scheduler.admit(can_prefill=False) is None
    assert scheduler.claim([of("a")], can_prefill=False) == Claim("b", None, wants_prefill=False)


def test_row_held_longest_is_given_up_once_it_has_got_on() -> None:
    rows = [of("a"), of("a"), of("b")]
    rows[0].seated_in, rows[1].seated_in = 3, 2
    assert longest_held(rows, "a", 2 + LEAST_TURNS) is rows[1]
    assert longest_held(rows, "a", 1 + LEAST_TURNS) is None


# Room in a full queue.


def test_newest_of_the_longest_line_make_room() -> None:
    queue = FakeQueue("aaaab")
    assert make_room([queue], "b", 1, 1)
    assert queue.lines.counts() == {"a": 3, "b": 1}
    assert [queue.lines.take("a").submitted_at for _ in range(3)] == [0, 1, 2]


def test_nobody_makes_room_for_one_who_would_have_as_many() -> None:
    queue = FakeQueue("aaabb")
    assert not make_room([queue], "b", 1, 1)
    assert not make_room([queue], "a", 1, 1)
    assert queue.lines.counts() == {"a": 3, "b": 2}


def test_those_that_have_begun_keep_their_place() -> None:
    queue = FakeQueue("aaa")
    newest = queue.lines.newest("a", 3)
    newest[0].paused = newest[1].paused = PausedRow(0, ())
    assert make_room([queue], "b", 1, 1)
    assert not queue.lines.remove(newest[2])
    assert not make_room([queue], "b", 1, 1)
    assert queue.lines.counts() == {"a": 2}


def test_room_is_made_in_whatever_queue_the_newest_wait() -> None:
    queues = FakeQueue("ab"), FakeQueue("baaa")
    assert make_room(queues, "c", 2, 2)
    assert [queue.lines.counts() for queue in queues] == [{"a": 1, "b": 1}, {"b": 1, "a": 1}]
