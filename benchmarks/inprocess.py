"""Our engine in this process, driven by hand: no thread, no network, no text."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks.models import Model
from service.contract import spec
from service.engine.cell import Cell, Shape
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.sampling import Sampling
from service.engine.sequence import Goal
from service.engine.sequence import Sequence as Row
from service.models.checks import shape_of
from service.models.tuning import Wish, tune
from service.observability.metrics import Metrics
from service.runtime import Runtime
from service.settings import Settings

MOST_WAITING = 1_000_000


def engine_limits(model: Model, runtime: Runtime, slots: int | None = None) -> Limits:
    """Sizes of an engine's ticks, as the server chooses them with default settings: the one place where that
    is decided for what runs in process.

    Args:
        model: to run.
        runtime: its graph; what the settings leave open is measured on it.
        slots: instead of the default.
    """
    default = {name: field.default for name, field in Settings.model_fields.items()}
    wish = Wish(slots or default["slots"], default["chunk"], default["chunk_rows"])
    tuning = tune(runtime, shape_of(model.spec), model.spec.task == "text-generation", wish)
    # No kept prompts: the same inputs come in every round.
    return tuning.limits(MOST_WAITING, default["stream_interval_ms"] / 1000, prompt_cache_bytes=0)


class Sink:
    """A receiver that nobody reads from."""

    backlog = 0
    most_backlog = 1 << 60

    def receive(self, result: Any) -> None:
        """Drop it."""


SINK = Sink()


class Collector:
    """Takes what an engine posts."""

    def __init__(self) -> None:
        self.results: list[tuple[Row, Any]] = []

    def post(self, results: list[tuple[Row, Any]]) -> None:
        """Keep a tick's results."""
        self.results.extend(results)


@dataclass(frozen=True, slots=True)
class Driven:
    """An engine and what it has posted."""

    engine: Engine
    collector: Collector

    @property
    def sizes(self) -> str:
        """Slots and the widest chunk tick, for a row's description."""
        limits = self.engine.limits
        return f"engine with {limits.slots} slots, chunk ticks of at most {limits.chunk_rows or limits.slots} rows x {limits.chunk} steps"

    def run(self, rows: list[Row]) -> list[tuple[Row, Any]]:
        """Submit sequences and turn the engine until all are over; their results in the order in which they
        came.
        """
        self.engine.submit(rows)
        while self.engine.tick():
            pass
        assert all(row.is_over for row in rows), "the engine came to rest before every sequence was over"
        results, self.collector.results = self.collector.results, []
        return results


def runtime_of(model: Model, variant: spec.Variant = "fp32", threads: int = 1) -> Runtime:
    """A session as the server makes it."""
    return Runtime(model.graph(variant), model.state_pairs, "cpu", threads)


def engine_of(model: Model, runtime: Runtime, limits: Limits | None = None) -> Driven:
    """An engine as the server makes it, but for its thread.

    Args:
        model: to run.
        runtime: its graph.
        limits: instead of those that the server would choose.
    """
    return drive(model.name, runtime, shape_of(model.spec), limits or engine_limits(model, runtime))


def drive(name: str, cell: Cell, shape: Shape, limits: Limits) -> Driven:
    """An engine over any cell."""
    collector = Collector()
    metrics = Metrics(CollectorRegistry()).for_model(name)
    return Driven(Engine(name, cell, shape, limits, collector.post, metrics), collector)


def classify(driven: Driven, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """The head's output at the last step of each input, in their order."""
    now = time.monotonic()
    rows = [Row(one, Goal.LAST, SINK, now) for one in inputs]
    outputs = {id(row): output for row, output in driven.run(rows)}
    return [outputs[id(row)] for row in rows]


def generate(driven: Driven, streams: int, characters: int) -> int:
    """Let so many streams generate side by side, each from one token and a seed of its own; how many
    characters came in all.
    """
    now = time.monotonic()
    prompt = np.zeros(1, np.int64)
    rows = [
        Row(prompt, Goal.GENERATE, SINK, now, sampling=Sampling(seed=stream), max_tokens=characters)
        for stream in range(streams)
    ]
    driven.run(rows)
    return streams * characters


def classifier(driven: Driven, inputs: Sequence[NDArray[Any]]) -> Callable[[], float]:
    """Work for `rounds.timed`: sequences classified."""
    return lambda: len(classify(driven, inputs))


def generator(driven: Driven, streams: int, characters: int) -> Callable[[], float]:
    """Work for `rounds.timed`: characters generated."""
    return lambda: generate(driven, streams, characters)
