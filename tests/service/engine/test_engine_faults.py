"""Tests of service.engine.engine on the fake cell where a single row's data raises: that row ends with an
error and a line in the log, and all others get all of their outputs bit for bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from structlog.testing import capture_logs

from service.engine import decode, prefill
from service.engine.request import Goal, Request, Row
from service.engine.sampling import Options, Sampling, Tokens, key_of, pick
from service.engine.scheduler import MIN_TURNS
from service.engine.slots import Pool
from service.errors import ModelFailure
from tests.service.engine.fakes import (
    LONG,
    VOCABULARY,
    Bench,
    Generated,
    assert_answered,
    assert_same,
    expected,
    generation_of,
    kinds_of,
    mixed,
    reader_of,
    received,
    row_of,
    score_of,
)

# The seed of rows whose sampling raises.
BAD_SEED = 666
MESSAGE = "model fake: the request failed in the engine; the server's log has the trace"


def break_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sampling raise whenever the key of BAD_SEED is in the batch, from position 12 on."""

    def picky(
        logits: NDArray[np.float32],
        options: Options,
        keys: NDArray[np.uint64],
        positions: NDArray[np.uint64],
    ) -> Tokens:
        if ((keys == key_of(BAD_SEED)) & (positions >= 12)).any():
            raise ValueError("this row cannot be sampled")
        return pick(logits, options, keys, positions)

    monkeypatch.setattr(decode, "pick", picky)


@pytest.fixture
def bad_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    break_sampling(monkeypatch)


def bad_stream(length: int, **others: Any) -> Row:
    return generation_of(LONG[:length], 40, Sampling(seed=BAD_SEED), **others)


def assert_failed(row: Row, num_tokens: int = 0) -> None:
    """Raise AssertionError unless a row has ended with so many of its tokens, then the error for its data."""
    *tokens, error = received(row)
    assert_same(tokens, expected(row)[:num_tokens] if num_tokens else [])
    assert isinstance(error, ModelFailure)
    assert str(error) == MESSAGE
    assert row.is_over


def run_logged(bench: Bench, *rows: Row) -> list[str]:
    """Run rows to their ends; return the exceptions that were logged meanwhile."""
    with capture_logs() as logs:
        bench.run(*rows)
    assert {line["event"] for line in logs} <= {"request failed in the engine"}
    assert all(line["log_level"] == "error" and line["model"] == "fake" for line in logs)
    return [repr(line["exc_info"]) for line in logs]


# Sampling.


@pytest.mark.parametrize("slots", [1, 3, 20])
@pytest.mark.usefixtures("bad_sampling")
def test_row_that_cannot_be_sampled_ends_alone(slots: int) -> None:
    bench, bad, others = Bench(slots), bad_stream(12), mixed()
    logged = run_logged(bench, *others[:5], bad, *others[5:])
    assert logged == ["ValueError('this row cannot be sampled')"]
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.parametrize("write_interval_s", [0.0, 1e9], ids=["handed over", "held"])
@pytest.mark.usefixtures("bad_sampling")
def test_tokens_from_before_the_error_come_before_it(write_interval_s: float) -> None:
    bench, bad, others = Bench(20, write_interval_s=write_interval_s), bad_stream(5), mixed()
    assert len(run_logged(bench, bad, *others)) == 1
    assert_failed(bad, 12 - 5)
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.usefixtures("bad_sampling")
def test_row_that_fails_at_its_last_token_fails() -> None:
    bench, bad = Bench(), generation_of(LONG[:5], 8, Sampling(seed=BAD_SEED))
    run_logged(bench, bad, *mixed())
    assert_failed(bad, 7)


@pytest.mark.usefixtures("bad_sampling")
def test_row_that_fails_while_its_reader_is_slow_ends() -> None:
    bench, bad = Bench(write_interval_s=1e9), bad_stream(5, max_backlog=1)
    bench.submit(bad)
    with capture_logs():
        while not bad.is_over:
            bench.tick_until_idle()
            reader_of(bad).take()
    assert_failed(bad, 12 - 5)
    bench.tick_until_idle()
    bench.assert_empty()


@pytest.mark.usefixtures("bad_sampling")
def test_several_rows_that_fail_in_one_tick_all_end() -> None:
    bench, bad, others = Bench(20), [bad_stream(12) for _ in range(4)], mixed()
    assert len(run_logged(bench, *bad, *others)) == 4
    for row in bad:
        assert_failed(row)
    assert_answered(*others)


# Inputs and states.


def with_inputs(inputs: NDArray[Any], goal: Goal, **others: Any) -> Row:
    return row_of(Request(inputs, goal, max_tokens=5, **others))


WRONG_INPUTS = [
    pytest.param(np.ones((20, 2), np.int64), id="too many dimensions"),
    pytest.param(np.array(["a"] * 20), id="no numbers"),
    pytest.param(np.array([None] * 20), id="objects"),
    pytest.param(np.ones((20, 3), np.float32), id="features"),
]
WRONG_STATES = [
    pytest.param((np.zeros(1, np.float32),), id="too few tensors"),
    pytest.param((np.zeros(1, np.float32), np.zeros(5, np.float32)), id="too wide"),
    pytest.param((np.zeros((3, 1), np.float32), np.zeros((3, 2), np.float32)), id="several rows"),
    pytest.param(("one", "two"), id="no arrays"),
]


@pytest.mark.parametrize("goal", Goal)
@pytest.mark.parametrize("inputs", WRONG_INPUTS)
@pytest.mark.parametrize("prompt_cache_bytes", [0, 1 << 20], ids=["no cache", "cache"])
def test_row_with_wrong_inputs_ends_alone(goal: Goal, inputs: NDArray[Any], prompt_cache_bytes: int) -> None:
    bench, others = Bench(prompt_cache_bytes=prompt_cache_bytes), mixed()
    bench.run(generation_of(LONG, 2))  # the cache is not empty
    bad = with_inputs(inputs, goal)
    assert len(run_logged(bench, *others[:5], bad, *others[5:])) == 1
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.parametrize("goal", Goal)
@pytest.mark.parametrize("state", WRONG_STATES)
@pytest.mark.parametrize("length", [1, 20])
def test_row_with_a_wrong_state_ends_alone(goal: Goal, state: Any, length: int) -> None:
    bench, others = Bench(), mixed()
    bad = with_inputs(np.ones(length + (goal is Goal.SCORE), np.int64), goal, state=state)
    assert len(run_logged(bench, *others[:5], bad, *others[5:])) == 1
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.parametrize("length", [1, 20], ids=["when it gets its slot", "when its prompt has been run"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sampling": Sampling(seed=-1)}, id="seed"),
        pytest.param({"sampling": Sampling(seed=2**64)}, id="large seed"),
        pytest.param({"sampling": Sampling(temperature="hot")}, id="temperature"),  # type: ignore[arg-type]
        pytest.param({"max_tokens": "many"}, id="number of tokens"),
        pytest.param({"position": None}, id="position"),
    ],
)
def test_row_that_cannot_begin_to_generate_ends_alone(length: int, changes: dict[str, Any]) -> None:
    bench, others = Bench(prompt_cache_bytes=1 << 20), mixed()
    options: dict[str, Any] = {"max_tokens": 5} | changes
    bad = row_of(Request(np.ones(length, np.int64), Goal.GENERATE, **options))
    assert len(run_logged(bench, *others[:5], bad, *others[5:])) == 1
    assert kinds_of(bad) == [ModelFailure]
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: with_inputs(np.ones(0, np.int64), Goal.LAST), id="LAST of nothing"),
        pytest.param(lambda: with_inputs(np.ones(0, np.int64), Goal.SCORE), id="SCORE of nothing"),
        pytest.param(lambda: with_inputs(np.ones(1, np.int64), Goal.SCORE), id="SCORE of one token"),
        pytest.param(lambda: with_inputs(np.ones(0, np.int64), Goal.GENERATE), id="GENERATE from nothing"),
        pytest.param(lambda: generation_of([1], 0), id="no token to generate"),
        pytest.param(lambda: generation_of(LONG, 0), id="no token to generate after a prompt"),
        pytest.param(lambda: generation_of([1], -3), id="fewer tokens than none"),
    ],
)
def test_row_without_anything_to_run_ends_alone(build: Callable[[], Row]) -> None:
    bench, bad, others = Bench(), build(), mixed()
    assert len(run_logged(bench, *others[:5], bad, *others[5:])) == 1
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


# Scores.


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("place", [1, 20, 49], ids=["second token", "in between", "last token"])
def test_text_whose_token_cannot_be_scored_ends_alone(chunk: int, place: int) -> None:
    bench, others = Bench(20, chunk), [*mixed(), *[score_of(LONG[start:]) for start in range(5)]]
    tokens = LONG.copy()
    tokens[place] = VOCABULARY + 3
    bad = score_of(tokens)
    assert run_logged(bench, *others[:7], bad, *others[7:])[0].startswith("IndexError")
    assert kinds_of(bad) == [ModelFailure]
    assert_answered(*others)
    bench.assert_empty()


def test_texts_that_cannot_be_scored_in_one_tick_all_end() -> None:
    bench = Bench(20)
    bad = [score_of([*LONG[:length], 99]) for length in (1, 2, 3, 30)]
    others = [score_of(LONG[:length]) for length in (2, 3, 4, 30)]
    assert len(run_logged(bench, *bad, *others)) == 4
    assert [kinds_of(row) for row in bad] == [[ModelFailure]] * 4
    assert_answered(*others)


# Any of them, in any company.

bad_rows = st.sampled_from(
    [
        lambda: bad_stream(1),
        lambda: bad_stream(9),
        lambda: bad_stream(14),
        lambda: bad_stream(9, max_backlog=2),
        lambda: with_inputs(np.ones((3, 2), np.int64), Goal.LAST),
        lambda: with_inputs(np.ones(3, np.int64), Goal.GENERATE, sampling=Sampling(seed=-1)),
        lambda: with_inputs(np.ones(1, np.int64), Goal.GENERATE, state=()),
        lambda: score_of([1, 2, 3, 4, 5, 99, 1, 2]),
    ]
)


@given(
    st.integers(1, 5),
    st.sampled_from([0.0, 1e9]),
    st.lists(st.tuples(bad_rows, st.integers(0, 9), st.integers(0, 3)), max_size=8),
)
def test_rows_that_fail_change_no_answer(
    slots: int, write_interval_s: float, script: list[tuple[Any, int, int]]
) -> None:
    bench, good, bad = Bench(slots, write_interval_s=write_interval_s), mixed(), list[Row]()
    with pytest.MonkeyPatch.context() as monkeypatch, capture_logs():
        break_sampling(monkeypatch)
        bench.submit(*good[:3])
        for build, place, ticks in script:
            bad.append(row := build())
            bench.submit(row, *mixed()[place : place + 1])
            for _ in range(ticks):
                bench.tick()
        bench.submit(*good[3:])
        while not all(row.is_over for row in [*good, *bad]):
            bench.tick_until_idle()
            for row in bad:
                reader_of(row).take()
    assert_answered(*good)
    for row in bad:
        *tokens, error = received(row)
        assert all(isinstance(token, Generated) for token in tokens)
        assert isinstance(error, ModelFailure)
    bench.tick_until_idle()
    bench.assert_empty()


# Memory that cannot be had.


class Scarce:
    """Replaces a function of rows: it raises MemoryError for batches, and for one row the first time."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self.inner = inner
        self.has_raised = False

    def __call__(self, logits: NDArray[np.float32], *others: Any) -> Any:
        if len(logits) > 1 or not self.has_raised:
            self.has_raised = self.has_raised or len(logits) == 1
            raise MemoryError
        return self.inner(logits, *others)


@pytest.mark.parametrize(
    ("module", "name", "build"),
    [
        pytest.param(decode, "pick", lambda: generation_of(LONG[:3], 9), id="sampling"),
        pytest.param(decode, "logprobs_of", lambda: generation_of(LONG[:3], 9), id="log-probabilities"),
        pytest.param(prefill, "logprobs_of", lambda: score_of(LONG), id="scoring"),
    ],
)
def test_row_without_memory_for_its_outputs_ends_alone(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, build: Callable[[], Row]
) -> None:
    bench, rows = Bench(slots=5, chunk=1), [build() for _ in range(5)]
    monkeypatch.setattr(module, name, Scarce(getattr(module, name)))
    assert run_logged(bench, *rows) == ["MemoryError()"]
    assert_failed(rows[0])
    assert_answered(*rows[1:])
    bench.assert_empty()


def without_memory_for(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, bad: Row) -> None:
    """Let a method raise MemoryError for one row."""
    inner = getattr(owner, name)

    def scarce(self: Any, row: Row, *others: Any) -> Any:
        if row is bad:
            raise MemoryError
        return inner(self, row, *others)

    monkeypatch.setattr(owner, name, scarce)


def test_row_without_memory_for_its_state_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, others = Bench(), mixed()
    bad = with_inputs(np.array(LONG), Goal.LAST, keeps_state=True)
    without_memory_for(monkeypatch, Pool, "state_of", bad)
    assert run_logged(bench, *others[:5], bad, *others[5:]) == ["MemoryError()"]
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


def test_row_without_memory_for_its_scores_ends_alone() -> None:
    bench, bad, others = Bench(slots=20), score_of(LONG), mixed()
    bench.submit(bad)
    bench.tick()
    assert bad.pieces is not None
    bad.pieces.append(np.zeros((1, 1), np.float32))  # cannot be joined with the others
    assert len(run_logged(bench, *others)) == 1
    assert_failed(bad)
    assert_answered(*others)
    bench.assert_empty()


def test_row_without_memory_for_its_tokens_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, others = Bench(write_interval_s=1e9), mixed()
    bad = with_inputs(np.array([1]), Goal.GENERATE, keeps_state=True)  # its state comes with its last tokens
    without_memory_for(monkeypatch, Pool, "state_of", bad)
    assert run_logged(bench, *others[:5], bad, *others[5:]) == ["MemoryError()"]
    assert_failed(bad, 1)
    assert_answered(*others)
    bench.assert_empty()


@pytest.mark.parametrize("reason", ["slow reader", "preempted"])
def test_row_without_memory_to_be_suspended_ends_alone(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    bench = Bench(slots=2)
    bad = generation_of([1], 200, max_backlog=3 if reason == "slow reader" else 1_000_000, client="many")
    other, few = generation_of([2], 200, client="many"), generation_of([3], 20, client="few")
    without_memory_for(monkeypatch, Pool, "values_of", bad)
    bench.submit(bad)
    for _ in range(2):
        bench.tick()
    bench.submit(other)
    for _ in range(MIN_TURNS):
        bench.tick()
    with capture_logs():
        bench.submit(few)
        bench.tick_until_idle()
    *tokens, error = received(bad)
    assert isinstance(error, ModelFailure)
    assert_same(tokens, expected(bad)[: len(tokens)])
    assert_answered(other, few)
    bench.assert_empty()
