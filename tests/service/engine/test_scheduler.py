"""service.engine.scheduler."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.scheduler import Scheduler, Tick
from service.engine.sequence import Sequence
from tests.service.engine.fakes import generation_of, last_of

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["enqueue", "enqueue_first", "admit", "release", "end", "drop_over"]),
        st.integers(0, 99),
    ),
    max_size=60,
)


def waiting(count: int) -> list[Sequence]:
    return [last_of([1]) for _ in range(count)]


def queue(scheduler: Scheduler, sequences: list[Sequence]) -> None:
    for sequence in sequences:
        scheduler.enqueue(sequence)


def admit_all(scheduler: Scheduler) -> list[Sequence]:
    admitted = []
    while (sequence := scheduler.admit(can_prefill=True)) is not None:
        admitted.append(sequence)
    return admitted


def test_admission_is_first_come_first_served() -> None:
    scheduler, sequences = Scheduler(2), waiting(5)
    queue(scheduler, sequences)
    assert admit_all(scheduler) == sequences[:2]
    scheduler.release("")
    assert admit_all(scheduler) == sequences[2:3]


def test_nothing_is_admitted_without_a_free_slot() -> None:
    scheduler = Scheduler(1)
    queue(scheduler, waiting(2))
    admit_all(scheduler)
    assert admit_all(scheduler) == []


def test_returning_sequence_goes_to_the_head_of_the_line() -> None:
    scheduler, sequences = Scheduler(1), waiting(3)
    queue(scheduler, sequences[:2])
    scheduler.enqueue_first(sequences[2])
    assert admit_all(scheduler) == [sequences[2]]


def test_sequences_that_are_over_take_no_slot() -> None:
    scheduler, sequences = Scheduler(2), waiting(4)
    queue(scheduler, sequences)
    sequences[0].is_over = sequences[2].is_over = True
    assert admit_all(scheduler) == [sequences[1], sequences[3]]


def test_line_waits_for_its_head_where_nothing_can_be_prefilled() -> None:
    scheduler, sequences = Scheduler(3), [generation_of([1], 5), last_of([1]), generation_of([1], 5)]
    queue(scheduler, sequences)
    assert [scheduler.admit(can_prefill=False) for _ in range(2)] == [sequences[0], None]
    assert admit_all(scheduler) == sequences[1:]


def test_dropped_sequences_do_not_count_as_waiting() -> None:
    scheduler, sequences = Scheduler(1), waiting(3)
    queue(scheduler, sequences)
    sequences[1].is_over = True
    scheduler.drop_over()
    assert scheduler.waiting == 2


def test_releasing_a_slot_that_nobody_holds_is_an_error() -> None:
    with pytest.raises(AssertionError, match="more slots released than taken"):
        Scheduler(2).release("")


def test_take_all_empties_the_line_in_order() -> None:
    scheduler, sequences = Scheduler(1), waiting(3)
    queue(scheduler, sequences)
    assert scheduler.take_all() == sequences
    assert scheduler.waiting == 0


@pytest.mark.parametrize(
    ("chunk_rows", "step_rows", "tick"),
    [
        pytest.param(0, 0, None, id="nothing to run"),
        pytest.param(2, 0, Tick.CHUNK, id="prompts alone"),
        pytest.param(0, 3, Tick.STEP, id="streams alone"),
    ],
)
def test_kind_that_alone_has_rows_runs(chunk_rows: int, step_rows: int, tick: Tick | None) -> None:
    scheduler = Scheduler(4)
    assert [scheduler.choose(chunk_rows, step_rows) for _ in range(3)] == [tick] * 3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_chunk_and_step_alternate_whenever_both_wait(turns: list[tuple[int, int]]) -> None:
    scheduler = Scheduler(8)
    before = None
    for chunk_rows, step_rows in turns:
        tick = scheduler.choose(chunk_rows, step_rows)
        assert (tick is None) == (chunk_rows + step_rows == 0)
        assert tick is not Tick.CHUNK or chunk_rows
        assert tick is not Tick.STEP or step_rows
        if chunk_rows and step_rows:
            assert tick is not before
        before = tick or before


def test_idle_turns_do_not_change_whose_turn_it_is() -> None:
    scheduler = Scheduler(8)
    first = scheduler.choose(1, 1)
    scheduler.choose(0, 0)
    assert scheduler.choose(1, 1) is not first


@pytest.mark.parametrize(("chunk_rows", "step_rows"), [(1, 0), (2, 1), (0, 1)])
def test_check_integrity_refuses_rows_that_differ_from_slots_taken(chunk_rows: int, step_rows: int) -> None:
    scheduler = Scheduler(4)
    queue(scheduler, waiting(2))
    admit_all(scheduler)
    with pytest.raises(AssertionError, match="slots taken"):
        scheduler.check_integrity(chunk_rows, step_rows)


@given(st.integers(1, 4), OPERATIONS)
def test_random_use_agrees_with_a_plain_line(slots: int, operations: list[tuple[str, int]]) -> None:
    """A deque and a count say who should be admitted; nobody is lost, doubled or let past a full house."""
    scheduler, line, active = Scheduler(slots), deque[Sequence](), 0
    everyone: list[Sequence] = []
    for operation, number in operations:
        if operation in ("enqueue", "enqueue_first"):
            [sequence] = waiting(1)
            everyone.append(sequence)
            if operation == "enqueue":
                scheduler.enqueue(sequence)
                line.append(sequence)
            else:
                scheduler.enqueue_first(sequence)
                line.appendleft(sequence)
        elif operation == "admit":
            right: list[Sequence] = []
            while line and active + len(right) < slots:
                sequence = line.popleft()
                if not sequence.is_over:
                    right.append(sequence)
            assert admit_all(scheduler) == right
            active += len(right)
        elif operation == "release" and active:
            scheduler.release("")
            active -= 1
        elif operation == "end" and everyone:
            everyone[number % len(everyone)].is_over = True
        elif operation == "drop_over":
            scheduler.drop_over()
            line = deque(one for one in line if not one.is_over)
        assert scheduler.active == active <= slots
        assert scheduler.waiting == len(line)
        scheduler.check_integrity(active, 0)
