"""Tests of service.engine.engine on the fake cell: rows that end with an end token, and states on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.request import Goal, Request, StateRow, TokenBatch
from service.engine.sampling import Sampling
from service.engine.streaming import TokenStream
from tests.service.engine.fakes import (
    LONG,
    VOCABULARY,
    Bench,
    Generated,
    assert_same,
    expected,
    generation_of,
    mixed,
    received,
    row_of,
)

ENDS = (2, 5)


def until_end(tokens: list[Generated], ends: tuple[int, ...] = ENDS) -> list[Generated]:
    """Return the tokens up to the first end token, which is the last one."""
    for index, one in enumerate(tokens):
        if one.token in ends:
            return [*tokens[:index], one._replace(is_last=True)]
    return tokens


@settings(max_examples=50)
@given(
    seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=8),
    slots=st.integers(1, 4),
    ends=st.sets(st.integers(0, VOCABULARY - 1)).map(tuple),
    prompt=st.integers(1, 30),
)
def test_row_ends_with_its_first_end_token_whoever_is_beside(
    seeds: list[int], slots: int, ends: tuple[int, ...], prompt: int
) -> None:
    bench = Bench(slots, end_tokens=ends)
    rows = [generation_of(LONG[:prompt], 12, Sampling(seed=seed)) for seed in seeds]
    bench.run(*rows)
    for row in rows:
        assert_same(received(row), until_end(expected(row), ends))
    bench.engine.check_integrity()
    assert bench.active == 0


def test_other_rows_are_as_without_end_tokens() -> None:
    bench = Bench(end_tokens=ENDS)
    rows = [row for row in mixed() if not row.generates]
    bench.run(*rows, generation_of(LONG[:5], 20))
    for row in rows:
        assert_same(received(row), expected(row))


def test_preempted_rows_end_where_they_would() -> None:
    bench = Bench(slots=2, end_tokens=ENDS)
    many = [generation_of(LONG[:3], 30, Sampling(seed=seed), client="many") for seed in range(6)]
    few = [generation_of(LONG[:3], 30, Sampling(seed=seed), client="few") for seed in range(2)]
    bench.run(*many, *few)
    for row in [*many, *few]:
        assert_same(received(row), until_end(expected(row)))


def test_no_step_is_run_after_the_end_token() -> None:
    row = generation_of([1], 64, Sampling(seed=3))
    count = len(until_end(expected(row)))
    assert count < 64
    bench = Bench(end_tokens=ENDS)
    bench.run(row)
    assert len(bench.cell.runs) == count


# States on the way.


class Batches:
    """A receiver that keeps batches as they are."""

    backlog, max_backlog = 0, 1_000_000

    def __init__(self) -> None:
        self.batches: list[TokenBatch] = []

    def receive(self, output: TokenBatch) -> None:
        self.batches.append(output)


@pytest.mark.parametrize("keeps_states", [True, False])
def test_each_batch_has_the_state_to_go_on_from(keeps_states: bool) -> None:
    prompt = np.array(LONG[:5], np.int64)
    sampling = Sampling(seed=4)
    request = Request(prompt, Goal.GENERATE, sampling, 20, keeps_state=True, keeps_states=keeps_states)
    row = row_of(request)
    row.receiver = found = Batches()
    bench = Bench(write_interval_s=0.0)
    bench.run(row)
    *others, last = found.batches
    assert len(others) > 1
    assert last.state is not None
    assert all((batch.state is not None) is keeps_states for batch in others)
    done: list[int] = []
    for batch in others:
        done += batch.ids
        if batch.state is not None:
            _assert_goes_on(batch.state, done, prompt, sampling)


def _assert_goes_on(
    state: StateRow, done: list[int], prompt: np.ndarray[tuple[int], np.dtype[np.int64]], sampling: Sampling
) -> None:
    """Raise AssertionError unless a row from the state generates what follows the tokens so far."""
    inputs = np.array([done[-1]], np.int64)
    position = len(prompt) + len(done) - 1
    rest = row_of(Request(inputs, Goal.GENERATE, sampling, 20 - len(done), state=state, position=position))
    bench = Bench()
    bench.run(rest)
    whole = [one.token for one in expected(generation_of(prompt.tolist(), 20, sampling))]
    assert [one.token for one in received(rest)] == whole[len(done) :]


async def test_reader_holds_one_state_however_slow_it_is() -> None:
    bench = Bench()
    stream = TokenStream(bench.group, 1000)
    state = (np.zeros(1, np.float32),)
    for token in range(5):
        stream.receive(TokenBatch([token], [], is_last=False, state=state))
    assert sum(batch.state is not None for batch in stream._batches) == 1
    assert await anext(stream) == TokenBatch([0, 1, 2, 3, 4], [], is_last=False, state=state)
