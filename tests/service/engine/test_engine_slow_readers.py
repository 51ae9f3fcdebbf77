"""Tests of service.engine.engine on the fake cell: a slow reader suspends its own row and no other."""

from service.errors import DeadlineExceeded
from tests.service.engine.fakes import (
    LONG,
    Bench,
    Generated,
    Reader,
    assert_answered,
    generation_of,
    kinds_of,
    last_of,
    reader_of,
    received,
)

# A turn looks at the backlog before its own token is delivered, so a row is suspended with one token more
# than its bound.


def test_row_is_suspended_one_tick_after_its_reader_has_the_maximum_backlog() -> None:
    bench, slow = Bench(), generation_of([1], 50, max_backlog=4)
    bench.submit(slow)
    bench.tick_until_idle()
    assert reader_of(slow).backlog == 4 + 1


def test_suspended_row_gives_up_its_slot() -> None:
    bench, slow, other = Bench(slots=1), generation_of([1], 50, max_backlog=2), generation_of([2], 5)
    bench.submit(slow, other)
    bench.tick_until_idle()
    assert_answered(other)
    assert bench.active == 0


def test_suspended_row_resumes_with_the_same_tokens() -> None:
    bench, slow = Bench(slots=2), generation_of([1, 2, 3], 20, max_backlog=3)
    bench.submit(slow)
    while not slow.is_over:
        bench.tick_until_idle()
        bench.run(generation_of([4], 3), last_of(LONG[:5]))
        reader_of(slow).take()
    assert_answered(slow)


def test_resumed_row_goes_before_rows_that_wait() -> None:
    bench, slow = Bench(slots=1), generation_of([1], 6, max_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    reader_of(slow).take()
    bench.submit(generation_of([2], 6))
    bench.tick()
    assert len(received(slow)) == 4


def test_suspended_row_can_be_cancelled() -> None:
    bench, slow = Bench(), generation_of([1], 50, max_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.cancel(slow)
    bench.tick()
    reader_of(slow).take()
    bench.tick_until_idle()
    assert len(received(slow)) == 3
    bench.assert_empty()


def test_suspended_row_out_of_time_gets_deadline_exceeded() -> None:
    bench, slow = Bench(), generation_of([1], 50, deadline=3.0, max_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.now = 3.0
    bench.tick()
    assert kinds_of(slow) == [Generated, Generated, Generated, DeadlineExceeded]


def test_last_token_is_sent_even_when_it_fills_the_backlog() -> None:
    bench, slow = Bench(), generation_of([1], 2, max_backlog=2)
    bench.run(slow)
    assert_answered(slow)


def test_news_of_a_reader_that_was_never_slow_changes_nothing() -> None:
    bench, stream, other = Bench(slots=2), generation_of([1], 20), generation_of([2], 20)
    bench.submit(stream, other)
    bench.tick()
    bench.group.resume(stream)
    bench.group.resume(stream)
    bench.tick_until_idle()
    bench.group.resume(stream)
    assert bench.tick_until_idle() == 0
    assert_answered(stream, other)


def test_reader_that_has_caught_up_twice_resumes_its_row_once() -> None:
    bench, slow = Bench(), generation_of([1], 20, max_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    reader_of(slow).take()
    bench.group.resume(slow)
    bench.tick_until_idle()
    assert len(received(slow)) == 6
    while not slow.is_over:
        reader_of(slow).take()
        bench.tick_until_idle()
    assert_answered(slow)
    bench.assert_empty()


class CountingReader(Reader):
    """A reader that never reads, and counts how often it is looked at."""

    looks = 0

    @property
    def backlog(self) -> int:
        self.looks += 1
        return super().backlog


def test_stalled_rows_cost_later_turns_nothing() -> None:
    bench, stalled = Bench(slots=100), [generation_of([1], 500, max_backlog=1) for _ in range(100)]
    for row in stalled:
        row.receiver = CountingReader(max_backlog=1)
    bench.run(*stalled)
    looks = [row.receiver.looks for row in stalled if isinstance(row.receiver, CountingReader)]
    assert len(looks) == 100
    assert bench.active == bench.num_waiting == 0
    bench.cell.runs.clear()
    bench.run(stream := generation_of([2], 300))
    assert_answered(stream)
    assert {rows for rows, _ in bench.cell.runs} == {1}
    assert looks == [row.receiver.looks for row in stalled if isinstance(row.receiver, CountingReader)]
