"""service.engine.engine shared by clients: who gets rows, who gives them up, and that pausing changes no
answer.
"""

import numpy as np
import pytest

from service.engine.fairness import LEAST_TURNS
from service.engine.prompts import LEAST_STEPS
from service.engine.sequence import Sequence
from service.errors import DeadlineExceeded, ModelFailure, Overloaded
from tests.service.engine.fakes import (
    LONG,
    Bench,
    assert_answered,
    assert_same,
    expected,
    generation_of,
    last_of,
    mixed,
    received,
    score_of,
)


def by(client: str, *sequences: Sequence) -> list[Sequence]:
    for sequence in sequences:
        sequence.client = client
    return list(sequences)


def paused(bench: Bench) -> float:
    return bench.metrics.paused.value


def contended(slots: int = 2) -> tuple[Bench, list[Sequence], Sequence]:
    """A client's streams in all slots, long enough to be paused, and one of another client that waits."""
    bench = Bench(slots)
    streams = by("many", *[generation_of([index], 200) for index in range(slots)])
    bench.submit(*streams)
    for _ in range(LEAST_TURNS):
        bench.tick()
    [waiting] = by("few", generation_of([1], 100))
    bench.submit(waiting)
    return bench, streams, waiting


def test_client_with_few_gets_a_row_of_the_client_with_many() -> None:
    bench, streams, waiting = contended()
    bench.tick()
    assert len(received(waiting)) == 1
    assert paused(bench) == 1
    bench.tick_until_idle()
    assert_answered(waiting, *streams)


def test_rows_are_kept_for_a_few_turns_before_they_are_paused() -> None:
    bench = Bench(slots=2)
    bench.submit(*by("many", generation_of([1], 200), generation_of([2], 200)))
    bench.tick()
    bench.submit(*by("few", generation_of([3], 100)))
    for _ in range(LEAST_TURNS - 1):
        bench.tick()
        assert paused(bench) == 0
    bench.tick()
    assert paused(bench) == 1


def test_equal_parts_are_left_alone() -> None:
    bench = Bench(slots=2)
    for client in "ab":
        bench.submit(*by(client, *[generation_of([index], 60) for index in range(3)]))
    for _ in range(50):
        bench.tick()
    assert paused(bench) == 0


def test_one_client_is_never_paused() -> None:
    bench = Bench(slots=2)
    bench.run(*mixed(), *mixed())
    assert paused(bench) == 0


@pytest.mark.parametrize("chunk_rows", [2, 0])
def test_pausing_changes_no_answer(chunk_rows: int) -> None:
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
    others: list[Sequence] = []
    for turn in range(200):
        bench.tick()
        if turn % 12 == 11:
            others += by("bc"[turn // 12 % 2], score_of(LONG[turn % 7 :]), generation_of(LONG[:20], 5))
            bench.submit(*others[-2:])
    bench.tick_until_idle()
    assert paused(bench) > 0
    assert_answered(*first, *others)


def test_long_input_is_paused_for_one_that_waits() -> None:
    bench = Bench(slots=8, chunk=1, chunk_rows=2)
    long = by("many", score_of(LONG * 4), last_of(LONG * 4))
    bench.submit(*long)
    for _ in range(LEAST_TURNS):
        bench.tick()
    [short] = by("few", last_of([1, 2]))
    bench.submit(short)
    bench.tick()
    bench.tick()
    assert_answered(short)
    bench.tick_until_idle()
    assert_answered(*long)


def test_followers_of_a_paused_prompt_are_not_held_up_with_it() -> None:
    bench = Bench(slots=4, chunk=1, chunk_rows=2, prompt_cache_bytes=10_000)
    prompt = [index % 5 for index in range(LEAST_STEPS + 30)]
    led = by("many", generation_of(prompt, 3), last_of(LONG * 3))
    bench.submit(*led)
    bench.tick()
    following = by("many", generation_of(prompt, 4))
    bench.submit(*following)
    for _ in range(LEAST_TURNS):
        bench.tick()
    [short] = by("few", last_of([1, 2]))
    bench.submit(short)
    bench.tick_until_idle()
    assert paused(bench) >= 1
    assert_answered(*led, *following, short)


# Paused rows that never come back.


def paused_one(bench: Bench, streams: list[Sequence]) -> Sequence:
    bench.tick()
    [found] = [one for one in streams if one.parked is not None or one.paused is not None]
    return found


def test_cancelled_paused_row_is_forgotten() -> None:
    bench, streams, waiting = contended()
    gone = paused_one(bench, streams)
    before = len(received(gone))
    bench.engine.cancel([gone])
    bench.tick()
    assert (bench.engine.num_waiting, len(received(gone))) == (0, before)
    bench.tick_until_idle()
    assert_answered(waiting, *[one for one in streams if one is not gone])


def test_paused_row_out_of_time_is_told_so_after_its_tokens() -> None:
    bench, streams, _ = contended()
    late = paused_one(bench, streams)
    late.deadline = 5.0
    bench.engine._deadlines.add([late], 0)
    bench.now = 5.0
    bench.tick()
    *tokens, error = received(late)
    assert isinstance(error, DeadlineExceeded)
    assert_same(tokens, expected(late)[: len(tokens)])
    assert len(tokens) == LEAST_TURNS


def test_paused_row_is_not_dropped_for_another_client() -> None:
    bench = Bench(slots=2, max_waiting=2)
    streams = by("many", generation_of([1], 200), generation_of([2], 200))
    bench.submit(*streams)
    for _ in range(LEAST_TURNS):
        bench.tick()
    bench.submit(*by("few", generation_of([3], 300)))
    held = paused_one(bench, streams)
    fresh = by("many", last_of([1]))
    bench.submit(*fresh)
    bench.submit(*by("third", last_of([5])))
    bench.tick()
    assert [type(one) for one in received(fresh[0])] == [Overloaded]
    with pytest.raises(Overloaded):
        bench.submit(*by("fourth", last_of([5])), *by("fourth", last_of([5])))
    bench.tick_until_idle()
    assert_answered(held)


def test_all_waiting_and_dropped_are_told_when_the_engine_stops() -> None:
    bench = Bench(slots=1, max_waiting=3)
    everyone = by("many", *[last_of(LONG) for _ in range(3)])
    bench.submit(*everyone)
    everyone += by("few", last_of([1]))
    bench.submit(everyone[-1])
    bench.run_until_fault()
    assert sum(isinstance(received(one)[-1], ModelFailure) for one in everyone) == 3
    assert [len(received(one)) for one in everyone] == [1] * 4


# A full queue.


def test_newest_of_the_client_with_most_waiting_makes_room_once() -> None:
    bench = Bench(slots=1, max_waiting=4)
    many = by("many", *[last_of([index]) for index in range(4)])
    bench.submit(*many)
    [few] = by("few", last_of([5]))
    bench.submit(few)
    assert bench.engine.num_waiting == 4
    bench.tick_until_idle()
    [error] = received(many[3])
    assert isinstance(error, Overloaded)
    assert error.retry_after_s > 0
    assert_answered(few, *many[:3])


def test_dropped_sequence_that_is_cancelled_hears_nothing() -> None:
    bench = Bench(slots=1, max_waiting=3)
    many = by("many", *[last_of([index]) for index in range(3)])
    bench.submit(*many)
    bench.submit(*by("few", last_of([3])))
    bench.engine.cancel([many[2]])
    bench.tick_until_idle()
    assert received(many[2]) == []
    assert_answered(*many[:2])


def test_cancelled_rows_are_free_within_two_ticks_and_counted() -> None:
    bench = Bench(slots=3)
    rows = [generation_of([1], 500), last_of(LONG * 9), score_of(LONG * 9)]
    bench.submit(*rows)
    for _ in range(3):
        bench.tick()
    bench.engine.cancel(rows)
    bench.tick()
    bench.tick()
    assert bench.engine.active == 0
    assert bench.metrics.cancelled.value == 3
    assert not any(isinstance(one, np.ndarray) for row in rows for one in received(row))
