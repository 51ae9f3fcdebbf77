"""service.engine.pace, and engines that refuse what cannot be in time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.pace import Load, Pace, steps_until_answer
from service.engine.sequence import Sequence
from service.errors import DeadlineExceeded, DeadlineTooNear
from tests.service.engine.fakes import Bench, assert_answered, generation_of, last_of, received, score_of

loads = st.builds(Load, st.integers(0, 200), st.integers(0, 10_000), st.integers(1, 64), st.just(0.0))


def test_unknown_pace_takes_no_time() -> None:
    assert Pace(0.0, 8.0).seconds_for(1e9, is_idle=True) == 0


def test_pace_known_before_the_first_tick_counts() -> None:
    assert Pace(1000.0, 8.0).seconds_for(500, is_idle=True) == 0.5


def test_estimate_under_load_leaves_room_for_those_who_come_later() -> None:
    assert Pace(1000.0, 8.0).seconds_for(500, is_idle=False) > 0.6


def test_time_between_chunk_ticks_counts_while_rows_have_input_left() -> None:
    pace = Pace(0.0, 0.0)
    pace.ran(4, 100, 0.0, 1.0, has_prefill=True)
    pace.ran(4, 0, 1.0, 3.0, has_prefill=True)  # a step tick
    for turn in range(500):
        pace.ran(4, 100, 3.0 + 4 * turn, 4.0 + 4 * turn, has_prefill=True)
    assert pace.steps_per_second == pytest.approx(25)


@pytest.mark.parametrize("is_told", [True, False], ids=["idle", "step ticks alone"])
def test_time_without_input_left_does_not_count(is_told: bool) -> None:
    pace = Pace(0.0, 0.0)
    pace.ran(4, 100, 0.0, 1.0, has_prefill=False)
    if is_told:
        pace.idle()
    else:
        pace.ran(4, 0, 1.0, 90.0, has_prefill=False)
    pace.ran(4, 100, 90.0, 91.0, has_prefill=True)
    assert pace.steps_per_second == pytest.approx(100)


@given(st.floats(10, 1e6), st.floats(0, 100), st.lists(st.integers(1, 1000), min_size=200, max_size=200))
def test_ticks_of_any_length_measure_the_same_pace(pace: float, overhead: float, ticks: list[int]) -> None:
    measured = Pace(0.0, overhead)
    for steps in ticks:
        measured.ran_chunk(steps, (overhead + steps) / pace)
    assert measured.steps_per_second == pytest.approx(pace)


def test_one_stalled_tick_is_no_slow_machine() -> None:
    pace = Pace(1000.0, 0.0)
    pace.ran_chunk(1, 60.0)
    assert pace.steps_per_second > 900


def test_idle_engine_has_its_best_pace() -> None:
    pace = Pace(1000.0, 0.0)
    for _ in range(500):
        pace.ran_chunk(1, 1.0)
    assert pace.seconds_for(1000, is_idle=False) > 100
    assert pace.seconds_for(1000, is_idle=True) == 1.0


@pytest.mark.parametrize(
    ("sequence", "steps"),
    [
        pytest.param(last_of([1] * 9), 9, id="all steps"),
        pytest.param(score_of([1] * 9), 8, id="all but the last"),
        pytest.param(generation_of([1] * 9, 1000), 9, id="until the first token"),
    ],
)
def test_cost_of_an_answer_on_an_idle_engine(sequence: Sequence, steps: int) -> None:
    assert steps_until_answer([sequence], Load(0, 0, 4)) == steps


def test_those_that_must_end_first_run_whole_and_the_others_beside() -> None:
    assert (
        steps_until_answer([last_of([1] * 5)], Load(rows=10, steps=1000, capacity=4)) == 7 * 100 + 3 * 5 + 5
    )


@pytest.mark.parametrize(
    ("usual", "others"),
    [
        pytest.param(2.0, 2 * 500, id="as many as of late"),
        pytest.param(90.0, 7 * 500, id="no more than a tick has room for"),
    ],
)
def test_long_sequence_shares_with_those_who_keep_coming(usual: float, others: int) -> None:
    assert (
        steps_until_answer([last_of([1] * 500)], Load(rows=1, steps=10, capacity=8, usual_rows=usual))
        == others + 500
    )


def test_rows_of_late_are_forgotten_when_nothing_runs() -> None:
    pace = Pace(0.0, 0.0)
    for turn in range(500):
        pace.ran(6, 100, turn, turn + 1.0, has_prefill=True)
    assert pace.usual_rows == pytest.approx(6)
    pace.idle()
    assert pace.usual_rows == 0


@given(
    loads,
    st.floats(0, 100),
    st.integers(1, 500),
    st.integers(0, 50),
    st.integers(0, 500),
    st.integers(0, 500),
)
def test_more_work_never_takes_less_time(
    idle: Load, usual: float, own: int, rows: int, steps: int, more: int
) -> None:
    load = idle._replace(usual_rows=usual)
    busier = Load(load.rows + rows, load.steps + steps, load.capacity, usual)
    before, after = (
        steps_until_answer([last_of([1] * own)], load),
        steps_until_answer([last_of([1] * (own + more))], busier),
    )
    assert before <= after or math.isclose(before, after)
    alone = steps_until_answer([last_of([1] * own)], idle)
    assert own <= alone <= before
    assert alone <= idle.steps + own or math.isclose(alone, idle.steps + own)


# Engines.


def test_answer_that_cannot_be_in_time_is_refused_before_anything_is_queued() -> None:
    bench, hopeless = Bench(steps_per_second=1e6), score_of([1] * 100_000, deadline=0.05)
    with pytest.raises(
        DeadlineTooNear, match=r"expected a deadline at least 0\.100 s away, found 0\.050 s"
    ) as refusal:
        bench.submit(hopeless)
    assert refusal.value.retry_after_s == pytest.approx(0.05, rel=0.01)
    assert not bench.tick()
    assert received(hopeless) == []


def test_stream_is_taken_however_long_it_would_be() -> None:
    bench, stream = Bench(steps_per_second=100.0), generation_of([1], 1_000_000, deadline=0.3)
    bench.submit(stream)
    bench.tick()
    bench.now = 0.3
    bench.tick()
    assert isinstance(received(stream)[-1], DeadlineExceeded)


def test_deadline_that_has_passed_ends_as_ever() -> None:
    bench, late = Bench(steps_per_second=1.0), last_of([1] * 100, deadline=-1.0)
    bench.run(late)
    assert [type(one) for one in received(late)] == [DeadlineExceeded]


def test_what_waits_counts_for_its_own_client_and_hardly_for_others() -> None:
    bench = Bench(slots=2, steps_per_second=100.0)
    bench.submit(*[last_of([1] * 10) for _ in range(50)])
    bench.tick()
    with pytest.raises(DeadlineTooNear):
        bench.submit(last_of([1] * 10, deadline=2.0))
    other = last_of([1] * 10, deadline=2.0)
    other.client = "other"
    bench.submit(other)
    bench.tick_until_idle()
    assert_answered(other)
