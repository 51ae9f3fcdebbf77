"""Tests of service.engine.engine shared by clients: who gets slots, who gives them up, and that preemption
changes no answer.
"""

import numpy as np
import pytest

from service.engine.request import Row
from service.engine.scheduler import MIN_TURNS
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    LONG,
    Bench,
    assert_answered,
    assert_same,
    by,
    expected,
    generation_of,
    kinds_of,
    last_of,
    mixed,
    received,
    score_of,
)


def num_preempted(bench: Bench) -> float:
    return bench.metrics.paused.value


def contended(slots: int = 2) -> tuple[Bench, list[Row], Row]:
    """Return a bench, streams of a client that have held all slots long enough, and one of another client."""
    bench = Bench(slots)
    streams = by("many", *[generation_of([index], 200) for index in range(slots)])
    bench.submit(*streams)
    for _ in range(MIN_TURNS):
        bench.tick()
    [waiting] = by("few", generation_of([1], 100))
    bench.submit(waiting)
    return bench, streams, waiting


def test_client_with_few_gets_a_slot_of_the_client_with_many() -> None:
    bench, streams, waiting = contended()
    bench.tick()
    assert len(received(waiting)) == 1
    assert num_preempted(bench) == 1
    bench.tick_until_idle()
    assert_answered(waiting, *streams)
    bench.assert_empty()


def test_rows_keep_their_slots_for_a_few_turns_before_they_are_preempted() -> None:
    bench = Bench(slots=2)
    bench.submit(*by("many", generation_of([1], 200), generation_of([2], 200)))
    bench.tick()
    bench.submit(*by("few", generation_of([3], 100)))
    for _ in range(MIN_TURNS - 1):
        bench.tick()
        assert num_preempted(bench) == 0
    bench.tick()
    assert num_preempted(bench) == 1


def test_equal_parts_are_left_alone() -> None:
    bench = Bench(slots=2)
    for client in "ab":
        bench.submit(*by(client, *[generation_of([index], 60) for index in range(3)]))
    for _ in range(50):
        bench.tick()
    assert num_preempted(bench) == 0


def test_one_client_is_never_preempted() -> None:
    bench = Bench(slots=2)
    bench.run(*mixed(), *mixed())
    assert num_preempted(bench) == 0


@pytest.mark.parametrize("chunk_rows", [2, 0])
def test_preemption_changes_no_answer(chunk_rows: int) -> None:
    bench = Bench(slots=3, chunk=1, chunk_rows=chunk_rows, prompt_cache_bytes=10_000)
    texts = [
        last_of(LONG),
        score_of(LONG),
        generation_of(LONG, 40),
        score_of(LONG[3:]),
        generation_of([1], 60),
    ]
    first = by("a", *texts, *mixed())
    bench.submit(*first)
    others: list[Row] = []
    for turn in range(200):
        bench.tick()
        if turn % 12 == 11:
            others += by("bc"[turn // 12 % 2], score_of(LONG[turn % 7 :]), generation_of(LONG[:20], 5))
            bench.submit(*others[-2:])
    bench.tick_until_idle()
    assert num_preempted(bench) > 0
    assert_answered(*first, *others)


def test_long_input_is_preempted_for_one_that_waits() -> None:
    bench = Bench(slots=8, chunk=1, chunk_rows=2)
    long = by("many", score_of(LONG * 4), last_of(LONG * 4))
    bench.submit(*long)
    for _ in range(MIN_TURNS):
        bench.tick()
    [short] = by("few", last_of([1, 2]))
    bench.submit(short)
    bench.tick()
    bench.tick()
    assert_answered(short)
    bench.tick_until_idle()
    assert_answered(*long)


def test_preempted_row_waits_behind_its_own_client_and_keeps_its_first_admission() -> None:
    bench, streams, _ = contended()
    fresh = by("many", last_of([1]))
    bench.submit(*fresh)
    suspended = preempted_one(bench, streams)
    assert bench.engine._queue.first_of("many") is fresh[0]
    assert suspended.has_begun
    assert bench.group.num_waiting == 1


# Preempted rows that never come back.


def preempted_one(bench: Bench, streams: list[Row]) -> Row:
    """Run a turn and return the stream that it has preempted."""
    bench.tick()
    [found] = [one for one in streams if one.suspended is not None]
    return found


def test_cancelled_preempted_row_is_forgotten() -> None:
    bench, streams, waiting = contended()
    gone = preempted_one(bench, streams)
    before = len(received(gone))
    bench.cancel(gone)
    bench.tick()
    assert (bench.num_waiting, len(received(gone))) == (0, before)
    bench.tick_until_idle()
    assert_answered(waiting, *[one for one in streams if one is not gone])


def test_preempted_row_out_of_time_is_told_so_after_its_tokens() -> None:
    bench, streams, _ = contended()
    late = preempted_one(bench, streams)
    late.deadline = 5.0
    bench.engine._deadlines.add(late)
    bench.now = 5.0
    bench.tick()
    *tokens, error = received(late)
    assert isinstance(error, DeadlineExceeded)
    assert_same(tokens, expected(late)[: len(tokens)])
    assert len(tokens) == MIN_TURNS


def test_preempted_row_is_not_evicted_for_another_client() -> None:
    """It does not count as waiting, since it has begun: the client's fresh rows make room, newest first."""
    bench = Bench(slots=2, max_waiting=2)
    streams = by("many", generation_of([1], 200), generation_of([2], 200))
    bench.submit(*streams)
    for _ in range(MIN_TURNS):
        bench.tick()
    bench.submit(*by("few", generation_of([3], 300)))
    held = preempted_one(bench, streams)
    fresh = by("many", last_of([1]), last_of([2]))
    bench.submit(*fresh)
    bench.submit(*by("third", last_of([5])))
    bench.tick()
    assert [kinds_of(one) for one in fresh] == [[], [Overloaded]]
    with pytest.raises(Overloaded):
        bench.submit(*by("fourth", last_of([5]), last_of([5])))
    bench.tick_until_idle()
    assert_answered(held, fresh[0])
    bench.assert_empty()


def test_fault_ends_waiting_rows_and_those_to_be_evicted() -> None:
    bench = Bench(slots=1, max_waiting=3)
    everyone = by("many", *[last_of(LONG) for _ in range(3)])
    bench.submit(*everyone)
    everyone += by("few", last_of([1]))
    bench.submit(everyone[-1])
    bench.run_until_fault()
    assert sum(isinstance(received(one)[-1], ModelFailure) for one in everyone) == 3
    assert [len(received(one)) for one in everyone] == [1] * 4
    assert bench.group.num_waiting == 0


# A full queue.


def test_newest_of_the_client_with_most_waiting_makes_room_once() -> None:
    bench = Bench(slots=1, max_waiting=4)
    many = by("many", *[last_of([index]) for index in range(4)])
    bench.submit(*many)
    [few] = by("few", last_of([5]))
    bench.submit(few)
    assert bench.group.num_waiting == 4
    bench.tick_until_idle()
    [error] = received(many[3])
    assert isinstance(error, Overloaded)
    assert error.retry_after_s > 0
    assert_answered(few, *many[:3])


def test_row_that_is_cancelled_after_its_eviction_hears_of_it_once() -> None:
    bench = Bench(slots=1, max_waiting=3)
    many = by("many", *[last_of([index]) for index in range(3)])
    bench.submit(*many)
    bench.submit(*by("few", last_of([3])))
    bench.cancel(many[2])
    bench.tick_until_idle()
    assert kinds_of(many[2]) == [Overloaded]
    assert_answered(*many[:2])
    bench.assert_empty()


def test_row_that_is_cancelled_before_an_eviction_does_not_count_as_evicted() -> None:
    """The next newest goes in its stead: the callers' side had counted on one place more."""
    bench = Bench(slots=1, max_waiting=3)
    many = by("many", *[last_of([index]) for index in range(3)])
    bench.submit(*many)
    bench.cancel(many[2])
    bench.submit(*by("few", last_of([3])))
    bench.tick_until_idle()
    assert received(many[2]) == []
    assert kinds_of(many[1]) == [Overloaded]
    assert_answered(many[0])
    bench.assert_empty()


def test_slots_of_cancelled_rows_are_free_within_two_turns_and_counted() -> None:
    bench = Bench(slots=3)
    rows = [generation_of([1], 500), last_of(LONG * 9), score_of(LONG * 9)]
    bench.submit(*rows)
    for _ in range(3):
        bench.tick()
    bench.cancel(*rows)
    bench.tick()
    bench.tick()
    assert bench.active == 0
    assert bench.metrics.cancelled.value == 3
    assert not any(isinstance(one, np.ndarray) for row in rows for one in received(row))
