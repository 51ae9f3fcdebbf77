"""Tests of service.engine.estimator, and of engines that refuse what cannot be answered in time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.estimator import Estimator, Load, ensure_in_time, steps_until_answer
from service.engine.request import Row
from service.errors import DeadlineExceeded, DeadlineTooNear
from tests.service.engine.fakes import (
    Bench,
    assert_answered,
    generation_of,
    kinds_of,
    last_of,
    received,
    score_of,
)


def alone(rows: int, steps: float, capacity: int, usual_rows: float = 0.0) -> Load:
    """Return the load of an engine in which one client has rows."""
    return Load(rows, steps, 0, 0, 0, capacity, usual_rows)


loads = st.builds(alone, st.integers(0, 200), st.integers(0, 10_000), st.integers(1, 64))


def test_unknown_throughput_takes_no_time() -> None:
    assert Estimator(0.0, 8.0).seconds_for(1e9, is_idle=True) == 0


def test_throughput_known_before_the_first_tick_counts() -> None:
    assert Estimator(1000.0, 8.0).seconds_for(500, is_idle=True) == 0.5


def test_estimate_under_load_leaves_room_for_those_who_come_later() -> None:
    assert Estimator(1000.0, 8.0).seconds_for(500, is_idle=False) > 0.6


def test_time_between_chunk_ticks_counts_while_rows_have_prefill_steps_left() -> None:
    estimator = Estimator(0.0, 0.0)
    estimator.add_tick(4, 100, 0.0, 1.0, has_prefill=True)
    estimator.add_tick(4, 0, 1.0, 3.0, has_prefill=True)  # a step tick
    for turn in range(500):
        estimator.add_tick(4, 100, 3.0 + 4 * turn, 4.0 + 4 * turn, has_prefill=True)
    assert estimator.steps_per_second == pytest.approx(25)


@pytest.mark.parametrize("is_reset", [True, False], ids=["idle", "step ticks alone"])
def test_time_without_prefill_steps_left_does_not_count(is_reset: bool) -> None:
    estimator = Estimator(0.0, 0.0)
    estimator.add_tick(4, 100, 0.0, 1.0, has_prefill=False)
    if is_reset:
        estimator.reset()
    else:
        estimator.add_tick(4, 0, 1.0, 90.0, has_prefill=False)
    estimator.add_tick(4, 100, 90.0, 91.0, has_prefill=True)
    assert estimator.steps_per_second == pytest.approx(100)


@given(st.floats(10, 1e6), st.floats(0, 100), st.lists(st.integers(1, 1000), min_size=200, max_size=200))
def test_ticks_of_any_length_measure_the_same_throughput(
    throughput: float, overhead: float, ticks: list[int]
) -> None:
    estimator = Estimator(0.0, overhead)
    for steps in ticks:
        estimator.add_chunk(steps, (overhead + steps) / throughput)
    assert estimator.steps_per_second == pytest.approx(throughput)


def test_one_stalled_tick_is_no_slow_machine() -> None:
    estimator = Estimator(1000.0, 0.0)
    estimator.add_chunk(1, 60.0)
    assert estimator.steps_per_second > 900


def test_idle_engine_has_its_best_throughput() -> None:
    estimator = Estimator(1000.0, 0.0)
    for _ in range(500):
        estimator.add_chunk(1, 1.0)
    assert estimator.seconds_for(1000, is_idle=False) > 100
    assert estimator.seconds_for(1000, is_idle=True) == 1.0


@pytest.mark.parametrize(
    ("row", "steps"),
    [
        pytest.param(last_of([1] * 9), 9, id="all steps"),
        pytest.param(score_of([1] * 9), 8, id="all but the last"),
        pytest.param(generation_of([1] * 9, 1000), 9, id="until the first token"),
    ],
)
def test_cost_of_an_answer_on_an_idle_engine(row: Row, steps: int) -> None:
    assert steps_until_answer([row], alone(0, 0, 4)) == steps


def test_rows_that_must_end_first_run_whole_and_the_others_beside() -> None:
    assert steps_until_answer([last_of([1] * 5)], alone(10, 1000, 4)) == 7 * 100 + 3 * 5 + 5


@pytest.mark.parametrize(
    ("usual", "others"),
    [
        pytest.param(2.0, 2 * 500, id="as many as of late"),
        pytest.param(90.0, 7 * 500, id="no more than a tick has room for"),
    ],
)
def test_long_row_shares_with_those_that_keep_coming(usual: float, others: int) -> None:
    assert steps_until_answer([last_of([1] * 500)], alone(1, 10, 8, usual)) == others + 500


def test_usual_rows_are_forgotten_when_nothing_runs() -> None:
    estimator = Estimator(0.0, 0.0)
    for turn in range(500):
        estimator.add_tick(6, 100, turn, turn + 1.0, has_prefill=True)
    assert estimator.usual_rows == pytest.approx(6)
    estimator.reset()
    assert estimator.usual_rows == 0


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
    busier = alone(load.own_rows + rows, load.own_steps + steps, load.capacity, usual)
    before, after = (
        steps_until_answer([last_of([1] * own)], load),
        steps_until_answer([last_of([1] * (own + more))], busier),
    )
    assert before <= after or math.isclose(before, after)
    fewest = steps_until_answer([last_of([1] * own)], idle)
    assert own <= fewest <= before
    assert fewest <= idle.own_steps + own or math.isclose(fewest, idle.own_steps + own)


@pytest.mark.parametrize(
    ("load", "steps"),
    [
        pytest.param(Load(0, 0, 64, 640_000, 1, 64), 63 * 40 + 40, id="64 long rows of another give way"),
        pytest.param(Load(0, 0, 3, 30_000, 1, 64), 3 * 40 + 40, id="places are free"),
        pytest.param(Load(0, 0, 64, 320, 1, 64), 320 + 40, id="others have little left"),
        pytest.param(Load(0, 0, 64, 64_000, 64, 64), 64 * 40 + 40, id="more clients than places"),
        pytest.param(
            Load(32, 32_000, 64, 640_000, 1, 64),
            1000 + 31 * 40 + 32 * (1000 / 32 + 40) + 40,
            id="one of its own",
        ),
    ],
)
def test_rows_of_other_clients_share_ticks_but_are_not_ahead(load: Load, steps: float) -> None:
    assert steps_until_answer([last_of([1] * 40)], load) == pytest.approx(steps)


def test_seconds_between_ends_are_shared_by_the_rows_that_end_together() -> None:
    estimator = Estimator(0.0, 0.0)
    for now in range(0, 8000, 8):
        for _ in range(4):
            estimator.add_end()
        estimator.measure_ends(float(now))
    assert estimator.retry_after_s(1) == pytest.approx(2.0)
    assert estimator.retry_after_s(3) == pytest.approx(6.0)


def test_idle_time_does_not_count_between_ends() -> None:
    estimator = Estimator(0.0, 0.0)
    estimator.add_end()
    estimator.measure_ends(0.0)
    estimator.reset()
    estimator.add_end()
    estimator.measure_ends(9000.0)
    assert estimator.retry_after_s(1) < 1


@pytest.mark.parametrize(
    ("num_waiting", "seconds"),
    [pytest.param(0, 0.02, id="at least a moment"), pytest.param(10**9, 10.0, id="at most a while")],
)
def test_retry_time_is_bounded(num_waiting: int, seconds: float) -> None:
    estimator = Estimator(0.0, 0.0)
    for now in range(100):
        estimator.add_end()
        estimator.measure_ends(float(now))
    assert estimator.retry_after_s(num_waiting) == seconds


def test_deadline_that_is_just_met_is_not_refused() -> None:
    ensure_in_time("fake", 1.0, 1.0)
    with pytest.raises(DeadlineTooNear):
        ensure_in_time("fake", 1.0, 1.001)


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
    bench.assert_empty()


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
    assert kinds_of(late) == [DeadlineExceeded]


def test_what_waits_counts_for_its_own_client_and_hardly_for_others() -> None:
    bench = Bench(slots=2, steps_per_second=100.0)
    bench.submit(*[last_of([1] * 10) for _ in range(50)])
    bench.tick()
    with pytest.raises(DeadlineTooNear):
        bench.submit(last_of([1] * 10, deadline=2.0))
    bench.submit(other := last_of([1] * 10, deadline=2.0, client="other"))
    bench.tick_until_idle()
    assert_answered(other)
