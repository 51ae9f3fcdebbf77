"""Tests of service.engine.engine on the fake cell, one rule a test. Random histories are in
test_engine_histories and test_engine_machine, real networks in test_engine_networks.
"""

import math
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from service.engine.request import Row
from service.errors import DeadlineExceeded, Overloaded
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
    reader_of,
    received,
    score_of,
)


@pytest.mark.parametrize("slots", [1, 2, 3, 16])
@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_every_goal_side_by_side_gets_its_own_answer(slots: int, chunk: int) -> None:
    bench, rows = Bench(slots, chunk), mixed()
    bench.run(*rows)
    assert_answered(*rows)


def test_arrival_order_does_not_change_any_answer() -> None:
    bench, rows = Bench(), mixed()
    bench.run(*reversed(rows))
    assert_answered(*rows)


def test_late_arrivals_leave_running_rows_unchanged() -> None:
    bench, rows = Bench(slots=4), mixed()
    for row in rows:
        bench.submit(row)
        bench.tick()
    bench.tick_until_idle()
    assert_answered(*rows)


def test_idle_engine_runs_and_delivers_nothing() -> None:
    bench = Bench()
    assert not bench.tick()
    assert bench.posts == []
    assert bench.cell.runs == []


def test_slots_are_free_again_after_the_last_answer() -> None:
    bench = Bench(slots=2)
    bench.run(*mixed())
    bench.assert_empty()


def test_chunks_are_no_longer_than_the_limit_nor_than_the_longest_row() -> None:
    bench = Bench(slots=2, chunk=4)
    bench.run(last_of(LONG[:6]), last_of(LONG[:3]))
    assert bench.cell.runs == [(2, 4), (1, 2)]


def test_short_row_is_not_kept_waiting_by_a_long_one() -> None:
    bench, short = Bench(slots=2, chunk=4), last_of([1, 2])
    bench.submit(last_of(LONG), short)
    bench.tick()
    assert_answered(short)


def test_ticks_are_longer_where_more_comes_with_a_turn() -> None:
    few, many = (Bench(slots=4, chunk=16, overhead=0.0, steps_per_second=rate) for rate in (0.0, 1e6))
    for bench in (few, many):
        bench.run(*[last_of(LONG) for _ in range(4)])
    assert len(many.cell.runs) < len(few.cell.runs)


@pytest.mark.parametrize("chunk_rows", [2, 0])
def test_rows_longer_than_the_prefill_buffers_windows_get_their_own_answers(chunk_rows: int) -> None:
    """Two clients preempt each other, so that rows join again in the middle of their windows."""
    bench = Bench(slots=3, chunk=40, chunk_rows=chunk_rows, overhead=100.0, prompt_cache_bytes=1 << 20)
    long = [LONG * 45, LONG[3:] * 50, LONG[1:] * 21]
    rows = [build(tokens, client="a") for build in (last_of, score_of) for tokens in long]
    rows += [generation_of(tokens, 3, client="b") for tokens in long]
    bench.submit(*rows[:6])
    for _ in range(20):
        bench.tick()
    bench.submit(*rows[6:])
    bench.tick_until_idle()
    assert bench.metrics.paused.value > 0
    assert_answered(*rows)


def test_streams_go_on_while_a_long_prompt_is_prefilled() -> None:
    bench, stream = Bench(slots=2, chunk=4), generation_of([1], 100)
    bench.submit(stream)
    bench.tick()
    bench.submit(last_of(LONG))
    counts = []
    for _ in range(20):
        bench.tick()
        counts.append(len(received(stream)))
    assert counts == [1 + (turn + 1) // 2 for turn in range(20)]


def test_prompts_go_on_while_streams_run() -> None:
    bench, prompt = Bench(slots=2, chunk=4), last_of(LONG)
    bench.submit(generation_of([1], 10_000), prompt)
    for _ in range(2 * math.ceil(len(LONG) / 4)):
        bench.tick()
    assert_answered(prompt)


def test_outputs_of_a_turn_come_together() -> None:
    bench = Bench(slots=5)
    bench.submit(*[generation_of([index], 3) for index in range(5)])
    bench.tick()
    assert [len(outputs) for outputs in bench.posts] == [5]


def test_first_token_of_a_one_token_prompt_needs_one_tick() -> None:
    bench, stream = Bench(), generation_of([3], 2)
    bench.submit(stream)
    bench.tick()
    assert len(received(stream)) == 1


def test_only_the_last_token_is_marked_last() -> None:
    bench, stream = Bench(), generation_of([3], 4)
    bench.run(stream)
    assert [one.is_last for one in received(stream)] == [False, False, False, True]


def test_logprobs_nobody_asked_for_are_nan() -> None:
    bench = Bench()
    asked, silent = generation_of([3], 4), generation_of([3], 4, wants_logprobs=False)
    bench.run(asked, silent)
    assert all(math.isnan(one.logprob) for one in received(silent))
    assert all(one.logprob <= 0 for one in received(asked))


def test_answer_is_a_copy_that_later_ticks_leave_alone() -> None:
    bench, first = Bench(slots=1), last_of([1, 2])
    bench.run(first)
    [before] = [array.copy() for array in received(first)]
    bench.run(last_of([5, 5, 5]))
    np.testing.assert_array_equal(received(first)[0], before)


# The queue's bound.


def test_queue_takes_as_many_as_its_bound() -> None:
    bench = Bench(slots=1, max_waiting=3)
    bench.submit(last_of([1]), last_of([1]), last_of([1]))
    with pytest.raises(Overloaded, match="expected at most 3 waiting sequences, found 3 and 1 more"):
        bench.submit(last_of([1]))


def test_request_that_does_not_fit_is_refused_whole() -> None:
    bench = Bench(slots=1, max_waiting=3)
    refused = [last_of([1]) for _ in range(4)]
    with pytest.raises(Overloaded):
        bench.submit(*refused)
    bench.tick_until_idle()
    assert [received(one) for one in refused] == [[]] * 4


def test_running_rows_do_not_count_as_waiting() -> None:
    bench = Bench(slots=2, max_waiting=2)
    bench.submit(last_of(LONG), last_of(LONG))
    bench.tick()
    bench.submit(last_of([1]), last_of([1]))
    with pytest.raises(Overloaded):
        bench.submit(last_of([1]))


def test_cancelled_waiting_rows_leave_their_places_at_the_next_turn() -> None:
    bench = Bench(slots=1, max_waiting=2)
    bench.submit(last_of(LONG))
    bench.tick()
    waiting = [last_of([1]), last_of([1])]
    bench.submit(*waiting)
    bench.cancel(*waiting)
    bench.tick()
    bench.submit(last_of([2]), last_of([2]))


def test_overloaded_says_when_to_try_again() -> None:
    bench = Bench(slots=1, max_waiting=4)
    with pytest.raises(Overloaded) as refusal:
        bench.submit(*[last_of([1]) for _ in range(5)])
    assert 0 < refusal.value.retry_after_s <= 10


def test_retry_time_grows_with_the_time_that_sequences_take() -> None:
    bench = Bench(slots=1, max_waiting=10)
    bench.submit(*[last_of([1]) for _ in range(10)])
    for _ in range(9):
        bench.now += 100.0
        bench.tick()
    assert bench.num_waiting == 1
    with pytest.raises(Overloaded) as refusal:
        bench.submit(*[last_of([1]) for _ in range(10)])
    assert refusal.value.retry_after_s > 1


def test_throughput_of_late_is_not_forgotten_while_rows_wait() -> None:
    """Every turn ends all rows that hold slots, but the engine is not idle."""
    bench = Bench(slots=2)
    bench.submit(*[last_of([1]) for _ in range(10)])
    for _ in range(4):
        bench.now += 1.0
        bench.tick()
        assert bench.engine.estimator.usual_rows > 0
    bench.tick_until_idle()
    assert bench.engine.estimator.usual_rows == 0


# Cancellation.


@pytest.mark.parametrize(
    ("build", "ticks"),
    [
        pytest.param(lambda: last_of(LONG), 2, id="while it is prefilled"),
        pytest.param(lambda: generation_of([1], 50), 3, id="while it generates"),
        pytest.param(lambda: generation_of(LONG, 50), 2, id="while its prompt is prefilled"),
        pytest.param(lambda: score_of(LONG), 0, id="before its first tick"),
    ],
)
def test_slot_of_a_cancelled_row_is_free_at_the_next_turn(build: Callable[[], Row], ticks: int) -> None:
    bench, leaving, following = Bench(slots=1), build(), last_of([2, 3])
    bench.submit(leaving, following)
    for _ in range(ticks):
        bench.tick()
    before = len(received(leaving))
    bench.cancel(leaving)
    bench.tick()
    assert_answered(following)
    assert len(received(leaving)) == before


def test_cancelling_a_finished_row_changes_nothing() -> None:
    bench, done = Bench(), last_of([1, 2])
    bench.run(done)
    bench.cancel(done)
    bench.run(last_of([3]))
    assert_answered(done)


def test_cancelling_twice_frees_one_slot() -> None:
    bench, leaving = Bench(slots=2), generation_of([1], 50)
    bench.submit(leaving, generation_of([2], 50))
    bench.tick()
    bench.cancel(leaving)
    bench.cancel(leaving)
    bench.tick()
    assert bench.active == 1


# Deadlines.


def test_waiting_row_out_of_time_gets_deadline_exceeded() -> None:
    bench, late = Bench(slots=1), last_of([1], deadline=5.0)
    bench.submit(last_of(LONG), late)
    bench.tick()
    bench.now = 5.0
    bench.tick()
    assert kinds_of(late) == [DeadlineExceeded]


def test_running_row_out_of_time_gets_deadline_exceeded_after_its_tokens() -> None:
    bench, late = Bench(), generation_of([1], 50, deadline=5.0)
    bench.submit(late)
    bench.tick()
    bench.tick()
    bench.now = 6.0
    bench.tick()
    *tokens, error = received(late)
    assert_same(tokens, expected(late)[:2])
    assert isinstance(error, DeadlineExceeded)


def test_slot_of_a_row_out_of_time_is_free_in_the_same_turn() -> None:
    bench, following = Bench(slots=1), last_of([2])
    bench.submit(last_of(LONG, deadline=1.0), following)
    bench.tick()
    bench.now = 1.0
    bench.tick()
    assert_answered(following)


@pytest.mark.parametrize("kind", ["cancelled", "out of time", "answered", "evicted"])
def test_rows_that_are_over_are_freed_within_two_turns_whatever_their_deadlines(kind: str) -> None:
    """Deadlines, accounts and the outputs of the last turn keep no row: no garbage collection runs here."""
    bench = Bench(slots=4, max_waiting=40)
    stream = generation_of([1], 1000, client="few")
    bench.submit(stream)
    bench.tick()
    deadline = 5.0 if kind == "out of time" else 1e6
    rows = by("many", *[build(LONG, deadline=deadline) for build in (last_of, score_of) for _ in range(20)])
    bench.submit(*rows)
    kept = [weakref.ref(row.request.inputs) for row in rows]
    if kind == "cancelled":
        bench.tick()
        bench.cancel(*rows)
    elif kind == "out of time":
        bench.now = 5.0
    elif kind == "evicted":
        for number in range(19):
            bench.submit(last_of([1], client=str(number)))
    while not all(row.is_over for row in rows):
        bench.tick()
    bench.posts.clear()
    for row in rows:
        reader_of(row).row = None
    del rows, row
    bench.tick()
    assert [inputs() for inputs in kept] == [None] * len(kept)


def test_idle_engine_keeps_no_row() -> None:
    bench, row = Bench(), last_of(LONG)
    bench.run(row)
    bench.posts.clear()
    kept = weakref.ref(row.request.inputs)
    reader_of(row).row = None
    del row
    assert kept() is None


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32])
def test_ids_of_any_width_give_the_same_answers(dtype: type) -> None:
    bench, rows = Bench(prompt_cache_bytes=1 << 20), mixed()
    for row in rows:
        row.request = row.request._replace(inputs=row.request.inputs.astype(dtype))
    bench.run(*rows)
    assert_answered(*rows)


def test_row_ahead_of_its_deadline_is_answered() -> None:
    bench, row = Bench(), last_of([1, 2], deadline=1.0)
    bench.submit(row)
    bench.now = 0.999
    bench.tick()
    assert_answered(row)


def test_deadline_after_the_answer_changes_nothing() -> None:
    bench, row = Bench(), last_of([1, 2], deadline=1.0)
    bench.run(row)
    bench.now = 2.0
    bench.tick()
    assert_answered(row)


def test_row_whose_deadline_has_passed_ends_without_running() -> None:
    bench, late = Bench(), last_of([1, 2], deadline=-1.0)
    bench.run(late)
    assert kinds_of(late) == [DeadlineExceeded]
    assert bench.cell.runs == []


def test_finished_rows_are_not_kept_until_their_deadlines() -> None:
    bench = Bench(slots=2)
    bench.submit(generation_of([1], 1_000_000, deadline=10.0))
    for _ in range(3000):
        bench.submit(last_of([1], deadline=20.0))
        bench.tick()
        bench.tick()
    assert len(bench.engine._deadlines) == 1
    assert len(bench.engine._deadlines._heap) < 1500


def test_idle_engine_says_how_long_it_may_sleep() -> None:
    bench = Bench()
    assert bench.engine.idle_s() is None
    bench.submit(slow := generation_of([1], 50, deadline=5.0, max_backlog=2))
    bench.tick_until_idle()
    bench.now = 3.0
    assert bench.engine.idle_s() == 2.0
    bench.now = 9.0
    assert bench.engine.idle_s() == 0.0
    bench.cancel(slow)
    bench.tick()
    assert bench.engine.idle_s() is None


@pytest.mark.parametrize("deadline", [threading.TIMEOUT_MAX * 2, 1e300, math.inf])
def test_idle_engine_sleeps_no_longer_than_a_thread_can(deadline: float) -> None:
    """A caller may set a deadline of thousands of years, and no timeout may be that long."""
    bench = Bench()
    bench.run(generation_of([1], 50, deadline=deadline, max_backlog=2))
    idle_s = bench.engine.idle_s()
    assert idle_s is not None
    assert 60 < idle_s < threading.TIMEOUT_MAX


def test_facts_say_what_the_last_turn_left() -> None:
    bench = Bench(slots=2, chunk=4)
    bench.submit(last_of(LONG), score_of(LONG))
    bench.tick()
    bench.submit(*[last_of(LONG[:9]) for _ in range(3)])
    bench.submit(last_of([1], client="other"))
    bench.tick()
    facts = bench.engine.facts
    assert (facts.num_active, facts.num_prefilling, facts.num_waiting, facts.num_clients) == (2, 2, 4, 2)
    assert (facts.waiting_steps, facts.prefill_steps) == (3 * 9 + 1, 2 * len(LONG) - 1 - 4 * 4)
    assert bench.metrics.active_sequences.value == 2
    assert bench.metrics.waiting_sequences.value == 4
