"""Contests of the ledger: the same load with an optimisation of the serving core and without it.

The contestants are "LOAD, with" and "LOAD, without"; the claims are how many times cheaper the optimisation
makes the load. `benchmarks.without` takes the optimisations out, `benchmarks.optimisations` lists them.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import client, loads
from benchmarks.inprocess import (
    Driven,
    classifier,
    classify,
    engine_limits,
    engine_of,
    generator,
    row_of,
    runtime_of,
)
from benchmarks.models import shipped
from benchmarks.rounds import Claim, Round, Sample, timed
from benchmarks.rows import forecasting, streams, ticks
from benchmarks.servers import Server, serve
from benchmarks.untrained import MIXED, SMALL
from benchmarks.without import NAMES
from benchmarks.workshop import Contest, Workshop
from seqserve.inference import grpc_service_pb2
from seqserve.v1 import text_classification_pb2, text_generation_pb2
from service.engine.request import Goal, Request
from service.engine.sampling import Sampling

SIDES = WITH, WITHOUT = "with", "without"
SERVER_LIVE = "/inference.GRPCInferenceService/ServerLive"
IN_FLIGHT = forecasting.IN_FLIGHT
STREAMS = 64
TICK_ROWS = 64
PROMPT_CHARACTERS, ANSWER_TOKENS = 500, 8
WARM_UP = 64

Run = Callable[[], Sample]
Load = Callable[[Workshop, Server], Run]
Open = Callable[[Workshop], AbstractContextManager[Contest]]


@dataclass(frozen=True, slots=True)
class Measure:
    """One number by which an optimisation is judged.

    Attributes:
        load: name of the load, without the side.
        what: is read off it, with its unit.
        of: the number, from a sample.
        is_cost: less is better.
    """

    load: str
    what: str
    of: Callable[[Sample], float]
    is_cost: bool = True

    def contestant(self, side: str) -> str:
        """Name of the load's contestant on a side."""
        return contestant(self.load, side)

    def claim(self) -> Claim:
        """How many times cheaper the load is with the optimisation.

        A rate depends on wall time, so that its sides are named: disturbed ones are then told by CPU time.
        """

        def of(samples: Round) -> float:
            ours, theirs = (self.of(samples[self.contestant(side)]) for side in SIDES)
            return theirs / ours if self.is_cost else ours / theirs

        sides = None if self.is_cost else (self.contestant(WITH), self.contestant(WITHOUT))
        return Claim(f"{self.load}: {self.what}", of, sides=sides)


def contestant(load: str, side: str) -> str:
    """Name of a load's contestant on a side."""
    return f"{load}, {side}"


def rate(load: str, unit: str) -> Measure:
    """Measure what a load does a second."""
    return Measure(load, unit, lambda sample: sample.value, is_cost=False)


def tick_time(load: str) -> Measure:
    """Measure what one tick takes."""
    return Measure(load, "us a tick", lambda sample: sample.value)


def cpu(load: str, each: str = "call") -> Measure:
    """Measure the server's CPU time for each of what a load does."""
    return Measure(load, f"CPU us a {each}", lambda sample: sample.notes[client.SERVER_CPU_US])


def p50(load: str) -> Measure:
    """Measure the median of a call's time."""
    return Measure(load, "p50 ms", lambda sample: sample.notes[forecasting.P50_MS])


def p99(load: str) -> Measure:
    """Measure the tail of a call's time."""
    return Measure(load, "p99 ms", lambda sample: sample.notes[forecasting.P99_MS])


def p99_to_p50(load: str) -> Measure:
    """Measure the tail of a call's time against its median."""

    def of(sample: Sample) -> float:
        return sample.notes[forecasting.P99_MS] / sample.notes[forecasting.P50_MS]

    return Measure(load, "p99/p50", of)


# In process


def _under(name: str, run: Run) -> Run:
    """Do the same with an optimisation taken out meanwhile."""

    def taken_out() -> Sample:
        with NAMES[name]():
            return run()

    return taken_out


def _pair(name: str, load: str, run: Run) -> dict[str, Run]:
    return {contestant(load, WITH): run, contestant(load, WITHOUT): _under(name, run)}


def _timed(workshop: Workshop, work: Callable[[], float]) -> Run:
    return workshop.alone(partial(timed, work))


CLASSIFYING = "classification of mixed lengths, in process"
GENERATING = f"{STREAMS} streams, 1 x 128, in process"
STEP_TICKS = f"step tick of {TICK_ROWS} rows over a cell that computes nothing"
CHUNK_TICKS = f"chunk tick of {TICK_ROWS} rows over a cell that computes nothing"

PREFILLING = f"prefill of {STREAMS} prompts of {PROMPT_CHARACTERS} characters, 1 x 128, in process"

CLASSIFIED = (rate(CLASSIFYING, "sequences/s"),)
PREFILLED = (*CLASSIFIED, rate(PREFILLING, "characters/s"))
GENERATED = (rate(GENERATING, "characters/s"),)
BOUND = (*GENERATED, tick_time(STEP_TICKS), tick_time(CHUNK_TICKS))


@contextmanager
def chunk_rows_contest(workshop: Workshop) -> Iterator[Contest]:
    """Classify with chunk ticks as tuned, and of one row."""
    model = workshop.model(MIXED)
    runtime = runtime_of(model)
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(300, 60)), loads.WORDS)

    def run(chunk_rows: int | None) -> Run:
        driven = engine_of(model, runtime, engine_limits(model, runtime, chunk_rows=chunk_rows))
        classify(driven, inputs[:WARM_UP])
        return _timed(workshop, classifier(driven, inputs))

    runs = {contestant(CLASSIFYING, WITH): run(None), contestant(CLASSIFYING, WITHOUT): run(1)}
    yield _contest(runs, CLASSIFIED, f"{len(inputs)} sequences, LSTM 1 x 256")


@contextmanager
def head_contest(workshop: Workshop) -> Iterator[Contest]:
    """Classify and prefill with the head at the wanted steps alone, and at every step."""
    model = workshop.model(MIXED)
    driven = engine_of(model, runtime_of(model))
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(1000, 100)), loads.WORDS)
    runs = _pair("head", CLASSIFYING, _timed(workshop, classifier(driven, inputs)))
    runs |= _pair("head", PREFILLING, _timed(workshop, _prefiller(workshop)))
    _warm_up(runs)
    yield _contest(runs, PREFILLED, f"{len(inputs):,} sequences, LSTM 1 x 256, 2 labels; prompts as named")


def _prefiller(workshop: Workshop) -> Callable[[], float]:
    """Return what runs prompts to their first tokens, and returns how many characters those prompts have."""
    model = workshop.model(SMALL)
    driven = engine_of(model, runtime_of(model))
    prompt = np.zeros(PROMPT_CHARACTERS, np.int64)

    def work() -> float:
        driven.run([row_of(Request(prompt, Goal.GENERATE, Sampling(seed), 1)) for seed in range(STREAMS)])
        return STREAMS * PROMPT_CHARACTERS

    return work


def _generator(workshop: Workshop, times: int) -> tuple[Run, str]:
    """Return S5's streams, some times over, and their description."""
    model = workshop.model(SMALL)
    driven: Driven = engine_of(model, runtime_of(model))
    characters = workshop.size(256, 32)
    work = generator(driven, STREAMS, characters)
    load = f"{STREAMS} streams x {characters} characters, {times} times over, untrained LSTM 1 x 128"
    return _timed(workshop, lambda: sum(work() for _ in range(times))), load


@contextmanager
def bindings_contest(workshop: Workshop) -> Iterator[Contest]:
    """Generate, and run ticks that compute nothing, with bindings kept and made anew."""
    run, load = _generator(workshop, workshop.size(4, 1))
    count = workshop.size(1000, 100)
    runs = _pair("bindings", GENERATING, run)
    for name, measure in ((STEP_TICKS, ticks.step_ticks), (CHUNK_TICKS, ticks.chunk_ticks)):
        runs |= _pair("bindings", name, workshop.alone(partial(measure, TICK_ROWS, count)))
    _warm_up(runs)
    yield _contest(runs, BOUND, f"{load}; {count:,} ticks")


@contextmanager
def sampler_contest(workshop: Workshop) -> Iterator[Contest]:
    """Generate with rows sampled together, and one at a time."""
    run, load = _generator(workshop, 1)
    runs = _pair("sampler", GENERATING, run)
    _warm_up(runs)
    yield _contest(runs, GENERATED, load)


# Through the real server

FORECAST = f"unary Forecast, {IN_FLIGHT} in flight"
FORECAST_ALONE = "unary Forecast, 1 in flight"
FORECAST_STREAM = f"ForecastStream, {IN_FLIGHT} streams"
CLASSIFY = f"Classify of 1 text, {IN_FLIGHT} in flight"
LIVE = f"unary ServerLive, {IN_FLIGHT} in flight"
CHARLM = f"{STREAMS} streams of charlm through gRPC"
SAME_PROMPT = (
    f"Generate of {ANSWER_TOKENS} characters after the same {PROMPT_CHARACTERS}, {IN_FLIGHT} in flight"
)


def forecasts(in_flight: int, full: int) -> Load:
    """Return a load of so many unary forecasts in a full run, with so many in flight."""

    def load(workshop: Workshop, server: Server) -> Run:
        requests = forecasting.unary_requests(workshop.size(full, full // 10))
        return forecasting.unary(workshop, server, client.FORECAST, requests, in_flight)

    return load


def pushed_days(workshop: Workshop, server: Server) -> Run:
    """Push one day after the other into open streams."""
    each = workshop.size(60, 10)
    messages = [forecasting.stream_messages(number, each) for number in range(IN_FLIGHT)]
    return forecasting.pushed(workshop, server, client.FORECAST_STREAM, messages, forecasting.check_forecasts)


def classified(workshop: Workshop, server: Server) -> Run:
    """Send review sentences one by one."""
    requests = [
        text_classification_pb2.ClassifyRequest(model="sentiment", texts=[text]).SerializeToString()
        for text in loads.review_texts(workshop.size(1500, 150))
    ]
    return forecasting.unary(workshop, server, client.CLASSIFY, requests)


def live(workshop: Workshop, server: Server) -> Run:
    """Ask whether the server is alive: a call without any work."""
    request = grpc_service_pb2.ServerLiveRequest().SerializeToString()
    return forecasting.unary(workshop, server, SERVER_LIVE, [request] * workshop.size(3000, 400))


def characters_streamed(workshop: Workshop, server: Server) -> Run:
    """Let streams of the shipped model generate side by side."""
    return streams.with_streams(workshop, server, STREAMS, workshop.size(96, 16))


def same_prompt(workshop: Workshop, server: Server) -> Run:
    """Let so many ask at once for a few tokens after one prompt, which earlier rounds have asked for."""
    prompt = (" ".join(streams.PROMPTS) * PROMPT_CHARACTERS)[:PROMPT_CHARACTERS]
    request = text_generation_pb2.GenerateRequest(
        model="charlm", prompt=prompt, max_tokens=ANSWER_TOKENS
    ).SerializeToString()

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            await client.server_streams(channel, client.GENERATE, [request] * IN_FLIGHT)
            usage.stop()
        return usage.sample(IN_FLIGHT)

    return lambda: workshop.run(work())


@dataclass(frozen=True, slots=True)
class ServerContest:
    """Loads for two servers of one shipped model.

    Attributes:
        model: that both serve.
        loads: what is sent to both, by name.
        driver: of both, unless it is what is taken out.
    """

    model: str
    loads: Mapping[str, Load]
    driver: str = "auto"


def through_servers(name: str, contest: ServerContest, measures: Sequence[Measure]) -> Open:
    """Return how two servers are made ready, one of which lacks the optimisation of that name."""

    @contextmanager
    def opened(workshop: Workshop) -> Iterator[Contest]:
        start = partial(serve, core=workshop.cores.server, engine_driver=contest.driver)
        with (
            _repository(contest.model) as repository,
            start(repository) as ours,
            start(repository, without=name) as other,
        ):
            servers = {WITH: ours, WITHOUT: other}
            runs = {
                contestant(load, side): make(workshop, server)
                for load, make in contest.loads.items()
                for side, server in servers.items()
            }
            _warm_up(runs)
            yield _contest(runs, measures, f"{contest.model}, engine driver {contest.driver}")

    return opened


@contextmanager
def _repository(name: str) -> Iterator[Path]:
    """Keep a folder of models that holds one of the shipped ones: a link out of it would be refused."""
    version = shipped(name).folder
    with tempfile.TemporaryDirectory(prefix="seqserve-ledger-") as folder:
        shutil.copytree(version, Path(folder) / name / version.name)
        yield Path(folder)


def _warm_up(runs: Mapping[str, Run]) -> None:
    for run in runs.values():
        run()


def _contest(runs: Mapping[str, Run], measures: Sequence[Measure], load: str) -> Contest:
    return Contest(runs, [measure.claim() for measure in measures], load)
