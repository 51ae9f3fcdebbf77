"""Tests of service.engine.engine on the fake cell whose ticks fail: nobody is left without an answer.

Mistakes in the data of a single row are in test_engine_faults.
"""

import pytest

from service.engine.inbox import Cancel, Submit
from service.engine.request import Row
from service.engine.streaming import deliver
from service.errors import DeadlineExceeded, ModelFailure
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeCell,
    Generated,
    assert_answered,
    generation_of,
    kinds_of,
    last_of,
    mixed,
    received,
    score_of,
)

# What a row with a deadline ends with if a method of the pools raises: the deadline comes second.
ENDS = {"leave": DeadlineExceeded, "leave_prefill": ModelFailure}


def test_failure_ends_the_rows_of_its_tick_alone() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[0]))
    hit = [last_of([1, 2]), last_of([3])]
    spared = [last_of([4]), generation_of([5], 3)]
    bench.run(*hit, *spared)
    assert [kinds_of(row) for row in hit] == [[ModelFailure]] * 2
    assert_answered(*spared)


def test_failed_chunk_tick_leaves_streams_running() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[1]))
    stream, prompt = generation_of([5], 6), last_of(LONG)
    bench.submit(stream)
    bench.tick()
    bench.submit(prompt)
    bench.tick_until_idle()
    assert_answered(stream)
    assert kinds_of(prompt) == [ModelFailure]


def test_failed_step_tick_leaves_prompts_running() -> None:
    bench = Bench(slots=2, cell=FakeCell(failures=[0]))
    stream, prompt = generation_of([5], 6), last_of(LONG)
    bench.submit(stream)
    bench.tick()
    bench.submit(prompt)
    bench.tick_until_idle()
    assert kinds_of(stream) == [ModelFailure]
    assert_answered(prompt)


def test_engine_serves_on_after_a_failure() -> None:
    bench = Bench(cell=FakeCell(failures=[0, 1]))
    bench.run(last_of([1]))
    bench.run(generation_of([1], 2))
    after = mixed()
    bench.run(*after)
    assert_answered(*after)


# Errors that nobody foresaw: no row can be trusted any more.


def test_fault_ends_every_row_that_waits_or_runs() -> None:
    bench = Bench(slots=2)
    everybody = [generation_of([1], 50), last_of(LONG), last_of([2]), score_of(LONG)]
    bench.submit(*everybody)
    bench.tick()
    bench.run_until_fault()
    assert [type(received(one)[-1]) for one in everybody] == [ModelFailure] * 4


def test_fault_ends_stalled_streams() -> None:
    bench, slow = Bench(), generation_of([1], 50, max_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.submit(last_of([2]))
    bench.run_until_fault()
    assert kinds_of(slow) == [Generated, Generated, Generated, ModelFailure]


def test_fault_sends_nothing_to_cancelled_rows() -> None:
    bench, gone = Bench(), last_of(LONG)
    bench.submit(gone, last_of(LONG))
    bench.tick()
    bench.cancel(gone)
    bench.run_until_fault()
    assert received(gone) == []


def test_row_out_of_time_in_the_turn_of_a_fault_is_answered() -> None:
    """It is over when the turn breaks off, but its output has not been delivered yet."""
    bench, late = Bench(), last_of(LONG, deadline=5.0)
    bench.submit(late, last_of(LONG))
    bench.tick()
    bench.now = 5.0
    bench.run_until_fault()
    assert len(received(late)) == 1


@pytest.mark.parametrize("method", ["leave", "leave_prefill"])
def test_row_that_ends_in_the_moment_of_a_fault_is_answered(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A row that is over gets no error from `fail`, so its output must be there before anything can raise."""
    bench, rows = Bench(), [last_of([1]), last_of(LONG, deadline=5.0), generation_of([1], 50)]
    bench.submit(*rows)

    def raising(row: Row) -> None:
        raise ZeroDivisionError("the pool is broken")

    def two_turns() -> None:
        bench.tick()
        bench.now = 5.0
        bench.tick()

    monkeypatch.setattr(bench.engine._active, method, raising)
    with pytest.raises(ZeroDivisionError):
        two_turns()
    deliver(bench.engine.fail())
    assert [kinds_of(row)[-1] for row in rows[1:]] == [ENDS[method], ModelFailure]
    assert len(received(rows[0])) == 1
    assert bench.engine.idle_s() is None


def test_engine_with_a_fault_refuses_what_comes_after() -> None:
    bench = Bench()
    bench.submit(last_of([1]))
    bench.run_until_fault()
    assert bench.engine.facts.has_failed
    assert bench.group.has_failed
    with pytest.raises(ModelFailure, match="its engine has stopped on an error"):
        bench.submit(last_of([1]))


def test_rows_that_come_in_spite_of_a_fault_are_ended_by_the_next_call() -> None:
    """They were checked before the engine failed and put into its inbox afterwards."""
    bench, late, gone = Bench(), last_of([1]), last_of([2])
    bench.submit(last_of([1]))
    bench.run_until_fault()
    bench.engine.inbox.put(Submit([late, gone]))
    bench.engine.inbox.put(Cancel([gone]))
    outputs = bench.engine.fail()
    assert [(row, type(output)) for row, output in outputs] == [(late, ModelFailure), (gone, ModelFailure)]
    assert bench.engine.fail() == []


def test_fault_leaves_no_count_and_no_deadline() -> None:
    """A deadline that stays would wake the driver of a failed engine again and again once it has passed."""
    bench = Bench(slots=1, max_waiting=3)
    slow = generation_of([1], 50, deadline=9.0, max_backlog=2)
    bench.run(slow)
    bench.submit(*[last_of(LONG, deadline=8.0, client="many") for _ in range(3)])
    bench.tick()
    bench.submit(last_of([1], client="many"))
    bench.submit(last_of([1], deadline=7.0, client="few"))  # evicts one
    bench.run_until_fault()
    assert bench.engine.idle_s() is None
    assert bench.num_waiting == bench.active == bench.group.num_waiting == 0
    assert all(account.waiting == 0 for account in bench.group._accounts.values())
    assert bench.metrics.active_sequences.value == bench.metrics.waiting_sequences.value == 0


def test_tokens_held_are_handed_over_before_the_failure_of_a_tick() -> None:
    bench, stream = Bench(write_interval_s=1e9, cell=FakeCell(failures=[4])), generation_of([1], 50)
    bench.run(stream)
    assert kinds_of(stream) == [Generated] * 4 + [ModelFailure]
