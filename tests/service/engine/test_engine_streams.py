"""Tests of service.engine.engine on the fake cell: tokens are handed over in batches."""

import math

from service.engine.request import Row, TokenBatch
from tests.service.engine.fakes import Bench, assert_answered, generation_of, last_of, received


def batches_of(bench: Bench, row: Row) -> list[int]:
    """Return how many tokens each batch of a row had."""
    return [
        len(output.ids)
        for outputs in bench.posts
        for one, output in outputs
        if one is row and isinstance(output, TokenBatch)
    ]


def test_first_token_is_not_held_back() -> None:
    bench, one = Bench(write_interval_s=10.0), generation_of([1], 20)
    bench.submit(one)
    bench.now = 100.0
    bench.tick()
    bench.submit(second := generation_of([2], 20))
    bench.tick()
    bench.tick()
    assert len(received(second)) == 1


def test_tokens_are_held_until_the_interval_is_over() -> None:
    bench, one = Bench(write_interval_s=1.0), generation_of([1], 50)
    bench.now = 5.0
    bench.submit(one)
    for _ in range(4):
        bench.tick()
    assert batches_of(bench, one) == [1]
    bench.now = 6.0
    bench.tick()
    assert batches_of(bench, one) == [1, 4]


def test_last_token_is_not_held_back() -> None:
    bench, one = Bench(write_interval_s=1000.0), generation_of([1], 7)
    bench.run(one)
    assert_answered(one)


def test_interval_grows_with_the_number_of_streams() -> None:
    bench = Bench(slots=4, write_interval_s=1.0, write_interval_row_s=0.5)
    bench.now = 10.0
    bench.submit(*[generation_of([index], 50) for index in range(4)])
    bench.tick()
    bench.now = 12.9
    bench.tick()
    assert len(bench.posts) == 1
    bench.now = 13.0
    bench.tick()
    assert [len(outputs) for outputs in bench.posts] == [4, 4]


def test_row_hands_over_what_it_holds_before_it_can_hold_no_more() -> None:
    bench, one = Bench(write_interval_s=1e9), generation_of([1], 500)
    bench.run(one)
    assert_answered(one)
    assert max(batches_of(bench, one)) == 64


def test_tokens_held_are_handed_over_before_an_error() -> None:
    bench, one = Bench(write_interval_s=1e9), generation_of([1], 50, deadline=5.0)
    bench.submit(one)
    for _ in range(6):
        bench.tick()
    bench.now = 5.0
    bench.tick()
    assert len(received(one)) == 6 + 1


def test_tokens_held_are_handed_over_before_a_fault() -> None:
    bench, one = Bench(write_interval_s=1e9), generation_of([1], 50)
    bench.submit(one)
    for _ in range(6):
        bench.tick()
    bench.run_until_fault()
    assert len(received(one)) == 6 + 1


def test_tokens_move_with_their_row_when_a_neighbour_leaves() -> None:
    bench = Bench(slots=3, write_interval_s=1e9)
    streams = [generation_of([index], 30 + index) for index in range(3)]
    bench.submit(*streams)
    for _ in range(5):
        bench.tick()
    bench.cancel(streams[0])
    bench.tick_until_idle()
    assert_answered(*streams[1:])


def test_logprobs_come_with_the_tokens_of_those_who_asked() -> None:
    bench = Bench(write_interval_s=1e9)
    asked, silent = generation_of([3], 9), generation_of([3], 9, wants_logprobs=False)
    bench.run(asked, silent)
    assert_answered(asked)
    assert all(math.isnan(one.logprob) for one in received(silent))


def test_rows_of_a_chunk_tick_are_limited_apart_from_slots() -> None:
    bench = Bench(slots=8, chunk_rows=2)
    rows = [last_of(range(6)) for _ in range(6)]
    bench.submit(*rows, *[generation_of([index], 5) for index in range(4)])
    bench.tick_until_idle()
    assert max(rows for rows, steps in bench.cell.runs if steps > 1) == 2
    assert_answered(*rows)
