"""service.engine.engine on the fake cell: a reader who does not keep up pauses its own row alone."""

from service.errors import DeadlineExceeded
from tests.service.engine.fakes import (
    LONG,
    Bench,
    Generated,
    assert_answered,
    generation_of,
    last_of,
    reader_of,
    received,
)

# A tick looks at the backlog before its own token is handed over, so a row pauses with one token more than
# its bound.


def test_row_pauses_one_tick_after_its_reader_has_the_most_backlog() -> None:
    bench, slow = Bench(), generation_of([1], 50, most_backlog=4)
    bench.submit(slow)
    bench.tick_until_idle()
    assert reader_of(slow).backlog == 4 + 1


def test_paused_row_gives_up_its_slot() -> None:
    bench, slow, other = Bench(slots=1), generation_of([1], 50, most_backlog=2), generation_of([2], 5)
    bench.submit(slow, other)
    bench.tick_until_idle()
    assert_answered(other)
    assert bench.engine.active == 0


def test_paused_row_resumes_with_the_same_tokens() -> None:
    bench, slow = Bench(slots=2), generation_of([1, 2, 3], 20, most_backlog=3)
    bench.submit(slow)
    while not slow.is_over:
        bench.tick_until_idle()
        bench.run(generation_of([4], 3), last_of(LONG[:5]))
        reader_of(slow).take()
    assert_answered(slow)


def test_resumed_row_goes_before_those_that_wait() -> None:
    bench, slow = Bench(slots=1), generation_of([1], 6, most_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    reader_of(slow).take()
    bench.submit(generation_of([2], 6))
    bench.tick()
    assert len(received(slow)) == 4


def test_paused_row_can_be_cancelled() -> None:
    bench, slow = Bench(), generation_of([1], 50, most_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.engine.cancel([slow])
    bench.tick()
    reader_of(slow).take()
    bench.tick_until_idle()
    assert len(received(slow)) == 3


def test_paused_row_out_of_time_gets_deadline_exceeded() -> None:
    bench, slow = Bench(), generation_of([1], 50, deadline=3.0, most_backlog=2)
    bench.submit(slow)
    bench.tick_until_idle()
    bench.now = 3.0
    bench.tick()
    assert [type(one) for one in received(slow)] == [Generated, Generated, Generated, DeadlineExceeded]


def test_last_token_is_sent_even_when_it_fills_the_backlog() -> None:
    bench, slow = Bench(), generation_of([1], 2, most_backlog=2)
    bench.run(slow)
    assert_answered(slow)
