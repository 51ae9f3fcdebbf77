"""service.engine.multi_step: ticks of several steps give what single steps give, bit for bit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.contract import spec
from service.engine.cell import BoundChunk, Shape, StepSize
from service.engine.multi_step import MultiStep
from service.engine.request import Goal, Request, Row, TokenBatch
from service.engine.sampling import Sampling, options_of
from service.errors import ModelFailure
from service.runtime import GenerationRuntime, Runtime, StepRun
from tests import tiny
from tests.service.engine.fakes import Bench, reader_of, received, row_of
from training.export.generation import generation_graph
from training.export.generation_graph import StateTensor
from training.export.graph import build_graph
from training.export.quantize import quantize

VOCABULARY = len(tiny.VOCABULARY)
FILE = "model.onnx"


@dataclass(frozen=True)
class Cells:
    """Both graphs of one network."""

    runtime: Runtime
    generator: GenerationRuntime
    shape: Shape


class Noted:
    """A generator that notes the rows and steps of its runs, and may change what they draw or fail."""

    def __init__(self, generator: GenerationRuntime) -> None:
        self.generator = generator
        self.runs: list[tuple[int, int]] = []
        self.unclear_from: int | None = None  # step of every run
        self.shift = 0  # added to its tokens
        self.fails = False

    def bind(self, run: StepRun) -> BoundChunk:
        return _NotedRun(self, run, self.generator.bind(run))


class _NotedRun:
    def __init__(self, noted: Noted, run: StepRun, bound: BoundChunk) -> None:
        self.noted, self._run, self._bound = noted, run, bound

    def run(self) -> None:
        steps, rows = self._run.picked.shape
        self.noted.runs.append((rows, steps))
        if self.noted.fails:
            raise ModelFailure("was told to fail")
        self._bound.run()
        self._run.picked[:] += self.noted.shift
        if self.noted.unclear_from is not None:
            self._run.reached[self.noted.unclear_from :, rows - 1] = np.nan
            self._run.picked[self.noted.unclear_from :, rows - 1] = 0


def cells_of(cell: Any = "lstm", *, int8: bool = False) -> Cells:
    network = tiny.generator_network(cell)
    config = network.config
    data = quantize(network) if int8 else build_graph(network).SerializeToString()
    states = [StateTensor(name, name + spec.NEXT_SUFFIX, config.hidden) for name in config.state_names]
    steps = generation_graph(data, FILE, states, VOCABULARY, None if int8 else config)
    assert steps is not None
    pairs = [(one.before, one.after) for one in states]
    shape = Shape(None, VOCABULARY, tuple(one.size for one in states))
    return Cells(Runtime(data, pairs, "cpu", 1), GenerationRuntime(steps, "cpu", 1, {FILE: data}), shape)


@pytest.fixture(scope="module")
def lstm() -> Cells:
    return cells_of()


@pytest.fixture(scope="module", params=["lstm", "gru", "int8"])
def cells(request: pytest.FixtureRequest) -> Cells:
    return cells_of("lstm", int8=True) if request.param == "int8" else cells_of(request.param)


def bench_of(cells: Cells, steps: int, slots: int = 3, generator: Any = None, **others: Any) -> Bench:
    """Return an engine; steps of its ticks: 1 for one without a generation graph."""
    return Bench(
        slots,
        cell=cells.runtime,
        shape=cells.shape,
        generator=None if steps == 1 else generator or cells.generator,
        step_sizes=(StepSize(slots, steps, steps),),
        **others,
    )


def outputs_of(bench: Bench, rows: Sequence[Row]) -> list[tuple[list[int], list[float], list[Any]]]:
    """Return the tokens, log-probabilities and last state of each row."""
    found: list[tuple[list[int], list[float], list[Any]]] = [([], [], []) for _ in rows]
    index_of = {id(row): index for index, row in enumerate(rows)}
    for post in bench.posts:
        for row, output in post:
            assert isinstance(output, TokenBatch), output
            ids, logprobs, state = found[index_of[id(row)]]
            ids += output.ids
            logprobs += output.logprobs
            if output.is_last and output.state is not None:
                state[:] = [tensor.tobytes() for tensor in output.state]
    return found


def row_from(request: Request, client: str = "") -> Row:
    return row_of(request, client=client)


def request_of(max_tokens: int, sampling: Sampling | None = None, **others: Any) -> Request:
    inputs = np.array(others.pop("inputs", [1]), np.int64)
    return Request(inputs, Goal.GENERATE, sampling or Sampling(seed=7), max_tokens, **others)


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-310, 1e-3, 0.5, 1.0, 3.0, 1e300]),
    top_k=st.sampled_from([0, 0, 1, 3, VOCABULARY - 1, VOCABULARY, 1 << 40]),
    top_p=st.sampled_from([1.0, 1.0, 0.01, 0.5, 0.9, 1 - 1e-15]),
    seed=st.integers(0, 2**64 - 1),
)
REQUESTS = st.builds(
    request_of,
    max_tokens=st.integers(1, 40),
    sampling=SAMPLINGS,
    inputs=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=6),
    wants_logprobs=st.booleans(),
    keeps_state=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tokens_states_and_logprobs_are_those_of_single_steps(lstm: Cells, data: st.DataObject) -> None:
    """Whatever the options and sizes, and whoever joins, leaves or is preempted meanwhile."""
    requests = data.draw(st.lists(REQUESTS, min_size=1, max_size=6))
    clients = [data.draw(st.sampled_from("ab")) for _ in requests]
    arrivals = [data.draw(st.integers(0, 12)) for _ in requests]
    end_tokens = data.draw(st.sets(st.integers(0, VOCABULARY - 1), max_size=1))
    slots, steps = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 16))
    alone = [row_from(one) for one in requests]
    single = bench_of(lstm, 1, end_tokens=end_tokens)
    for row in alone:
        single.run(row)
    rows = [row_from(one, client) for one, client in zip(requests, clients, strict=True)]
    several = bench_of(lstm, steps, slots, end_tokens=end_tokens)
    for turn in range(13):
        for row, at in zip(rows, arrivals, strict=True):
            if at == turn:
                several.submit(row)  # alone, since rows that are submitted together are one client's
        several.tick()
    several.tick_until_idle()
    several.assert_empty()
    assert outputs_of(several, rows) == outputs_of(single, alone)


def test_every_cell_and_set_of_weights_has_the_tokens_of_single_steps(cells: Cells) -> None:
    requests = [
        request_of(30, keeps_state=True),
        request_of(30, Sampling(0.0), wants_logprobs=True),
        request_of(30, Sampling(0.8, 4, 0.9, 11)),
    ]
    found = []
    for steps in (1, 8):
        # The same rows beside each other in each tick: int8 rounds all of them by one scale.
        bench, rows = bench_of(cells, steps), [row_from(one) for one in requests]
        bench.run(*rows)
        found.append(outputs_of(bench, rows))
    assert found[0] == found[1]


def test_rows_that_cut_tokens_have_their_own_number_of_steps(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench = Bench(
        2, cell=lstm.runtime, shape=lstm.shape, generator=generator, step_sizes=(StepSize(2, 16, 1),)
    )
    bench.run(row_from(request_of(20)), row_from(request_of(5, Sampling(top_p=0.5))))
    assert {rows for rows, _ in generator.runs} == {1}


def test_few_runs_make_many_tokens(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench = bench_of(lstm, 16, generator=generator)
    bench.run(row_from(request_of(65)))
    assert generator.runs == [(1, 16)] * 4


def test_first_token_does_not_wait_for_those_behind_it(lstm: Cells) -> None:
    bench, row, later = bench_of(lstm, 16), row_from(request_of(100)), row_from(request_of(100))
    bench.submit(row)
    bench.tick()
    assert len(received(row)) == 1
    bench.tick()
    assert len(received(row)) == 17
    bench.submit(later)
    bench.tick()
    assert len(received(later)) == 1


def test_row_with_fewer_tokens_left_runs_beside_others(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench = bench_of(lstm, 16, generator=generator)
    bench.run(row_from(request_of(33)), row_from(request_of(4)))
    assert generator.runs == [(2, 16), (1, 16)]
    assert bench.metrics.tokens_generated.value == 37
    assert bench.metrics.steps["padded"].value == 13


def test_tick_ends_with_a_row_whose_state_is_asked_for(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench = bench_of(lstm, 16, generator=generator)
    bench.run(row_from(request_of(21)), row_from(request_of(5, keeps_state=True)))
    assert generator.runs[0] == (2, 4)


def test_tick_is_run_again_up_to_an_end_token_of_a_row_whose_state_is_asked_for(lstm: Cells) -> None:
    row = row_from(request_of(17))
    bench_of(lstm, 1).run(row)
    tokens = [one.token for one in received(row)]
    end = next(token for token in tokens if 1 < tokens.index(token) < 10)
    generator = Noted(lstm.generator)
    found = []
    for steps in (16, 1):
        row = row_from(request_of(17, keeps_state=True))
        bench = bench_of(lstm, steps, generator=generator, end_tokens=[end])
        bench.run(row)
        found += outputs_of(bench, [row])
    assert found[0] == found[1]
    assert generator.runs == [(1, 16), (1, tokens.index(end))]


@pytest.mark.parametrize("unclear_from", [0, 1, 5])
def test_draws_that_are_not_clear_are_left_to_the_sampler(lstm: Cells, unclear_from: int) -> None:
    requests = [request_of(40, wants_logprobs=True, keeps_state=True), request_of(33, Sampling(seed=8))]
    alone = [row_from(one) for one in requests]
    single = bench_of(lstm, 1)
    single.run(*alone)
    generator = Noted(lstm.generator)
    generator.unclear_from = unclear_from
    several, rows = bench_of(lstm, 8, generator=generator), [row_from(one) for one in requests]
    several.run(*rows)
    assert outputs_of(several, rows) == outputs_of(single, alone)


def test_row_whose_draws_are_never_clear_costs_few_ticks(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    generator.unclear_from = 0
    bench = bench_of(lstm, 8, generator=generator)
    bench.run(row_from(request_of(500)))
    assert len(generator.runs) < 20


def test_single_steps_are_run_while_prompts_are_run(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench = bench_of(lstm, 8, generator=generator, chunk=2)
    bench.submit(row_from(request_of(100)))
    bench.tick()
    count = len(generator.runs)
    bench.submit(row_from(request_of(2, inputs=[1] * 11)))
    for _ in range(8):  # prompt of 10 steps in chunks of 2, each followed by a step tick
        bench.tick()
    assert len(generator.runs) == count
    bench.tick_until_idle()
    assert len(generator.runs) > count


def test_tokens_handed_over_before_a_failure_are_kept(lstm: Cells) -> None:
    generator = Noted(lstm.generator)
    bench, row = bench_of(lstm, 8, generator=generator), row_from(request_of(30))
    bench.submit(row)
    bench.tick()
    bench.tick()
    generator.fails = True
    bench.tick_until_idle()
    *tokens, error = received(row)
    assert len(tokens) == 9
    assert isinstance(error, ModelFailure)
    bench.assert_empty()


@pytest.mark.parametrize("shift", [VOCABULARY, -VOCABULARY, -(2**62)])
@pytest.mark.parametrize("end_tokens", [(), (0,)])
def test_numbers_that_are_no_tokens_end_rows_and_no_engine(
    lstm: Cells, shift: int, end_tokens: tuple[int, ...]
) -> None:
    """A graph may draw them for a number of rows or steps that no check has run."""
    generator = Noted(lstm.generator)
    generator.shift = shift
    bench, row = bench_of(lstm, 8, generator=generator, end_tokens=end_tokens), row_from(request_of(30))
    bench.run(row)
    assert isinstance(received(row)[-1], ModelFailure)
    generator.shift = 0
    bench.run(again := row_from(request_of(30, Sampling(0.0))))
    assert not isinstance(received(again)[-1], ModelFailure)
    bench.assert_empty()


def test_cancelled_row_leaves_after_a_tick(lstm: Cells) -> None:
    bench, row = bench_of(lstm, 8), row_from(request_of(1000))
    bench.submit(row)
    bench.tick()
    bench.tick()
    bench.cancel(row)
    bench.tick_until_idle()
    assert len(received(row)) == 9
    bench.assert_empty()


def test_slow_reader_is_suspended_between_ticks(lstm: Cells) -> None:
    alone = row_from(request_of(100))
    bench_of(lstm, 1).run(alone)
    bench, row = bench_of(lstm, 16), row_of(request_of(100), max_backlog=20)
    bench.submit(row)
    bench.tick_until_idle()
    assert len(received(row)) < 100
    while not row.is_over:
        reader_of(row).take()
        bench.tick_until_idle()
    assert [one.token for one in received(row)] == [one.token for one in received(alone)]


def test_logits_that_are_no_numbers_end_their_row_alone(lstm: Cells) -> None:
    """The sampler finds them, as it does in single steps."""
    broken = np.full(24, np.nan, np.float32)
    state = (broken,) * 4
    bench = bench_of(lstm, 8)
    bad, good = row_from(request_of(20, state=state)), row_from(request_of(20))
    bench.run(bad, good)
    assert isinstance(received(bad)[-1], ModelFailure)
    assert len(received(good)) == 20


def test_steps_fit_into_the_logits_that_are_held(lstm: Cells) -> None:
    """A vocabulary so large that a tick holds the logits of one step alone runs single steps."""
    generator = Noted(lstm.generator)
    wide = replace(lstm.shape, outputs=1 << 20)
    multi = MultiStep(generator, wide, 2, (StepSize(2, 8, 8),), None)
    columns: dict[str, NDArray[Any]] = {
        "remaining": np.array([50, 50]),
        "needs_state": np.zeros(2, np.bool_),
    }
    options = options_of(np.ones(2), np.zeros(2, np.int64), np.ones(2), 1 << 20)
    assert multi.steps(columns, options, 64) == 1
