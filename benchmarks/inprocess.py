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
from service.engine.cell import PLAIN, Cell, Decoding, Shape
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.limits import Limits
from service.engine.request import Goal, Output, Request, Row
from service.engine.sampling import Sampling
from service.models.checks import shape_of
from service.models.step_costs import step_sizes
from service.models.step_tuning import measure_steps
from service.models.tuning import Wish, tune
from service.observability.metrics import Metrics
from service.observability.times import Times
from service.runtime import GenerationRuntime, Runtime
from service.settings import Settings

MAX_WAITING = 1_000_000


def engine_limits(
    model: Model,
    runtime: Runtime,
    slots: int | None = None,
    chunk_rows: int | None = None,
) -> Limits:
    """Sizes of an engine's ticks, as the server chooses them with default settings: the one place where that
    is decided for what runs in process.

    Args:
        model: to run.
        runtime: its graph; what the settings leave open is measured on it.
        slots, chunk_rows: instead of the defaults.
    """
    default = {name: field.default for name, field in Settings.model_fields.items()}
    wish = Wish(slots or default["slots"], default["chunk"], chunk_rows or default["chunk_rows"])
    tuning = tune(runtime, shape_of(model.spec), model.spec.task == "text-generation", wish)
    # No kept prompts: the same inputs come in every round.
    return tuning.limits(default["stream_interval_ms"] / 1000, prompt_cache_bytes=0)


class Sink:
    """A receiver that nobody reads from."""

    backlog = 0
    max_backlog = 1 << 60

    def receive(self, output: Any) -> None:
        """Drop it."""


SINK = Sink()


def row_of(request: Request) -> Row:
    """Return the request as a row whose outputs nobody reads."""
    return Row(request, SINK, Times(time.monotonic()))


@dataclass(frozen=True, slots=True)
class Driven:
    """An engine whose turns are called by hand, and its callers' side."""

    engine: Engine
    group: EngineGroup

    @property
    def sizes(self) -> str:
        """Slots and the widest chunk tick, for a row's description."""
        limits = self.engine.limits
        rows = limits.chunk_rows or limits.slots
        return f"engine with {limits.slots} slots, chunk ticks of at most {rows} rows x {limits.chunk} steps"

    def run(self, rows: list[Row]) -> list[Output]:
        """Submit rows, call turns until all are over, and return the outputs in their order."""
        self.group.submit(rows)
        outputs: list[Output] = []
        while (turn := self.engine.run_turn()).is_busy:
            outputs += turn.outputs
        outputs += turn.outputs
        assert all(row.is_over for row in rows), "the engine came to rest before every row was over"
        return outputs


def runtime_of(model: Model, variant: spec.Variant = "fp32", threads: int = 1) -> Runtime:
    """A session as the server makes it."""
    return Runtime(model.graph(variant), model.state_pairs, "cpu", threads)


def generator_of(model: Model, variant: spec.Variant = "fp32") -> GenerationRuntime | None:
    """The session of the generation graph as the server makes it; None: the model has none."""
    weights = model.spec.variants[variant]
    if weights.generation is None:
        return None
    graph = (model.folder / weights.generation).read_bytes()
    return GenerationRuntime(graph, "cpu", 1, {weights.file: model.graph(variant).read_bytes()})


def engine_of(
    model: Model,
    runtime: Runtime,
    limits: Limits | None = None,
    generator: GenerationRuntime | None = None,
) -> Driven:
    """An engine as the server makes it, but for its thread.

    Args:
        model: to run.
        runtime: its graph.
        limits: instead of those that the server would choose.
        generator: its generation graph; None: step ticks have one step.
    """
    limits, shape, decoding = limits or engine_limits(model, runtime), shape_of(model.spec), PLAIN
    if generator is not None:
        default = Settings.model_fields["stream_interval_ms"].default / 1000
        costs = measure_steps(runtime, generator, shape, limits.slots)
        decoding = Decoding((), generator, step_sizes(costs, default))
    return drive(model.name, runtime, shape, limits, decoding)


def drive(name: str, cell: Cell, shape: Shape, limits: Limits, decoding: Decoding = PLAIN) -> Driven:
    """Return an engine over any cell."""
    metrics = Metrics(CollectorRegistry()).for_model(name)
    engine = Engine(name, cell, shape, limits, metrics, decoding=decoding)
    return Driven(engine, EngineGroup([engine], MAX_WAITING))


def classify(driven: Driven, inputs: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Return the head's output at the last step of each input, in their order."""
    rows = [row_of(Request(one, Goal.LAST)) for one in inputs]
    outputs = {id(row): output for row, output in driven.run(rows)}
    return [outputs[id(row)] for row in rows]


def generate(driven: Driven, streams: int, characters: int) -> int:
    """Let streams generate side by side, each from one token; return the characters of all."""
    prompt = np.zeros(1, np.int64)
    rows = [
        row_of(Request(prompt, Goal.GENERATE, Sampling(seed=stream), characters)) for stream in range(streams)
    ]
    driven.run(rows)
    return streams * characters


def classifier(driven: Driven, inputs: Sequence[NDArray[Any]]) -> Callable[[], float]:
    """Work for `rounds.timed`: sequences classified."""
    return lambda: len(classify(driven, inputs))


def generator(driven: Driven, streams: int, characters: int) -> Callable[[], float]:
    """Work for `rounds.timed`: characters generated."""
    return lambda: generate(driven, streams, characters)
