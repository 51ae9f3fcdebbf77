"""service.engine.engine on the fake cell: what goes wrong in a tick costs nobody an answer."""

import pytest

from service.errors import ModelFailure
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeCell,
    Generated,
    assert_answered,
    generation_of,
    last_of,
    mixed,
    received,
    score_of,
)


def test_failure_ends_the_rows_of_its_tick_alone() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[0]))
    hit = [last_of([1, 2]), last_of([3])]
    spared = [last_of([4]), generation_of([5], 3)]
    bench.run(*hit, *spared)
    assert [[type(one) for one in received(sequence)] for sequence in hit] == [[ModelFailure]] * 2
    assert_answered(*spared)


def test_failed_chunk_tick_leaves_streams_running() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[1]))
    stream, prompt = generation_of([5], 6), last_of(LONG)
    bench.submit(stream)
    bench.tick()
    bench.submit(prompt)
    bench.tick_until_idle()
    assert_answered(stream)
    assert [type(one) for one in received(prompt)] == [ModelFailure]


def test_failed_step_tick_leaves_prompts_running() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[0]))
    stream, prompt = generation_of([5], 6), last_of(LONG)
    bench.submit(stream)
    bench.tick()
    bench.submit(prompt)
    bench.tick_until_idle()
    assert [type(one) for one in received(stream)] == [ModelFailure]
    assert_answered(prompt)


def test_engine_serves_on_after_a_failure() -> None:
    bench = Bench(cell=FakeCell(failures=[0, 1]))
    bench.run(last_of([1]))
    bench.run(generation_of([1], 2))
    after = mixed()
    bench.run(*after)
    assert_answered(*after)


# Errors that nobody foresaw: no row can be trusted any more, but nobody is left without an answer.


def test_fault_answers_everybody_who_waits_or_runs() -> None:
    bench = Bench(slots=2)
    everybody = [generation_of([1], 50), last_of(LONG), last_of([2]), score_of(LONG)]
    bench.submit(*everybody)
    bench.tick()
    bench.run_until_fault()
    assert [type(received(one)[-1]) for one in everybody] == [ModelFailure] * 4


def test_fault_answers_paused_streams() -> None:
    bench, slow = Bench(), generation_of([1], 50, most_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.submit(last_of([2]))
    bench.run_until_fault()
    assert [type(one) for one in received(slow)] == [Generated, Generated, Generated, ModelFailure]


def test_fault_leaves_those_who_left_alone() -> None:
    bench, gone = Bench(), last_of(LONG)
    bench.submit(gone, last_of(LONG))
    bench.tick()
    bench.engine.cancel([gone])
    bench.run_until_fault()
    assert received(gone) == []


def test_sequence_out_of_time_in_the_tick_of_a_fault_is_answered() -> None:
    """It is over when the tick breaks off, but its answer has not been posted yet."""
    bench, late = Bench(), last_of(LONG, deadline=5.0)
    bench.submit(late, last_of(LONG))
    bench.tick()
    bench.now = 5.0
    bench.run_until_fault()
    assert len(received(late)) == 1


def test_engine_with_a_fault_refuses_what_comes_after() -> None:
    bench = Bench()
    bench.submit(last_of([1]))
    bench.run_until_fault()
    assert bench.engine.has_failed
    with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
        bench.submit(last_of([1]))
