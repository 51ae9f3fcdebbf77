"""service.engine.engine on the fake cell: one rule a test. Random histories are in test_engine_histories,
real networks in test_engine_networks.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest

from service.engine.sequence import Sequence
from service.errors import DeadlineExceeded, Overloaded
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


@pytest.mark.parametrize("slots", [1, 2, 3, 16])
@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_every_goal_side_by_side_gets_its_own_answer(slots: int, chunk: int) -> None:
    bench, sequences = Bench(slots, chunk), mixed()
    bench.run(*sequences)
    assert_answered(*sequences)


def test_arrival_order_does_not_change_any_answer() -> None:
    bench, sequences = Bench(), mixed()
    bench.run(*reversed(sequences))
    assert_answered(*sequences)


def test_late_arrivals_leave_running_rows_unchanged() -> None:
    bench, sequences = Bench(slots=4), mixed()
    for sequence in sequences:
        bench.submit(sequence)
        bench.tick()
    bench.tick_until_idle()
    assert_answered(*sequences)


def test_idle_engine_runs_and_posts_nothing() -> None:
    bench = Bench()
    assert not bench.tick()
    assert bench.posts == []
    assert bench.cell.runs == []


def test_slots_are_free_again_after_the_last_answer() -> None:
    bench = Bench(slots=2)
    bench.run(*mixed())
    assert bench.engine.active == 0


def test_chunks_are_no_longer_than_the_limit_nor_than_the_longest_row() -> None:
    bench = Bench(slots=2, chunk=4)
    bench.run(last_of(LONG[:6]), last_of(LONG[:3]))
    assert bench.cell.runs == [(2, 4), (1, 2)]


def test_short_sequence_is_not_kept_waiting_by_a_long_one() -> None:
    bench, short = Bench(slots=2, chunk=4), last_of([1, 2])
    bench.submit(last_of(LONG), short)
    bench.tick()
    assert_answered(short)


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


def test_results_of_a_tick_come_in_one_post() -> None:
    bench = Bench(slots=5)
    bench.submit(*[generation_of([index], 3) for index in range(5)])
    bench.tick()
    assert [len(post) for post in bench.posts] == [5]


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


def test_running_sequences_do_not_count_as_waiting() -> None:
    bench = Bench(slots=2, max_waiting=2)
    bench.submit(last_of(LONG), last_of(LONG))
    bench.tick()
    bench.submit(last_of([1]), last_of([1]))
    with pytest.raises(Overloaded):
        bench.submit(last_of([1]))


def test_cancelled_waiting_sequences_make_room_at_the_next_tick() -> None:
    bench = Bench(slots=1, max_waiting=2)
    bench.submit(last_of(LONG))
    bench.tick()
    waiting = [last_of([1]), last_of([1])]
    bench.submit(*waiting)
    bench.engine.cancel(waiting)
    bench.tick()
    bench.submit(last_of([2]), last_of([2]))


def test_overloaded_says_when_to_try_again() -> None:
    bench = Bench(slots=1, max_waiting=4)
    with pytest.raises(Overloaded) as refusal:
        bench.submit(*[last_of([1])] * 5)
    assert 0 < refusal.value.retry_after_s <= 10


def test_retry_time_grows_with_the_time_that_sequences_take() -> None:
    bench = Bench(slots=1, max_waiting=10)
    bench.submit(*[last_of([1]) for _ in range(10)])
    for _ in range(9):
        bench.now += 100.0
        bench.tick()
    with pytest.raises(Overloaded) as refusal:
        bench.submit(*[last_of([1])] * 10)
    assert refusal.value.retry_after_s > 1


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
def test_cancelled_row_is_free_at_the_next_tick(build: Callable[[], Sequence], ticks: int) -> None:
    bench, leaving, following = Bench(slots=1), build(), last_of([2, 3])
    bench.submit(leaving, following)
    for _ in range(ticks):
        bench.tick()
    before = len(received(leaving))
    bench.engine.cancel([leaving])
    bench.tick()
    assert_answered(following)
    assert len(received(leaving)) == before


def test_cancelling_a_finished_sequence_changes_nothing() -> None:
    bench, done = Bench(), last_of([1, 2])
    bench.run(done)
    bench.engine.cancel([done])
    bench.run(last_of([3]))
    assert_answered(done)


def test_cancelling_twice_frees_one_slot() -> None:
    bench, leaving = Bench(slots=2), generation_of([1], 50)
    bench.submit(leaving, generation_of([2], 50))
    bench.tick()
    bench.engine.cancel([leaving])
    bench.engine.cancel([leaving])
    bench.tick()
    assert bench.engine.active == 1


# Deadlines.


def test_waiting_sequence_out_of_time_gets_deadline_exceeded() -> None:
    bench, late = Bench(slots=1), last_of([1], deadline=5.0)
    bench.submit(last_of(LONG), late)
    bench.tick()
    bench.now = 5.0
    bench.tick()
    assert [type(one) for one in received(late)] == [DeadlineExceeded]


def test_running_sequence_out_of_time_gets_deadline_exceeded_after_its_tokens() -> None:
    bench, late = Bench(), generation_of([1], 50, deadline=5.0)
    bench.submit(late)
    bench.tick()
    bench.tick()
    bench.now = 6.0
    bench.tick()
    *tokens, error = received(late)
    assert_same(tokens, expected(late)[:2])
    assert isinstance(error, DeadlineExceeded)


def test_row_out_of_time_is_free_in_the_same_tick() -> None:
    bench, following = Bench(slots=1), last_of([2])
    bench.submit(last_of(LONG, deadline=1.0), following)
    bench.tick()
    bench.now = 1.0
    bench.tick()
    assert_answered(following)


def test_sequence_ahead_of_its_deadline_is_answered() -> None:
    bench, sequence = Bench(), last_of([1, 2], deadline=1.0)
    bench.submit(sequence)
    bench.now = 0.999
    bench.tick()
    assert_answered(sequence)


def test_deadline_after_the_answer_changes_nothing() -> None:
    bench, sequence = Bench(), last_of([1, 2], deadline=1.0)
    bench.run(sequence)
    bench.now = 2.0
    bench.tick()
    assert_answered(sequence)


def test_already_passed_deadline_is_refused_without_running() -> None:
    bench, late = Bench(), last_of([1, 2], deadline=-1.0)
    bench.run(late)
    assert [type(one) for one in received(late)] == [DeadlineExceeded]
    assert bench.cell.runs == []


def test_finished_sequences_are_not_kept_until_their_deadlines() -> None:
    bench = Bench(slots=2)
    bench.submit(generation_of([1], 1_000_000, deadline=10.0))
    for _ in range(3000):
        bench.submit(last_of([1], deadline=20.0))
        bench.tick()
        bench.tick()
    assert len(bench.engine._deadlines) < 1500
