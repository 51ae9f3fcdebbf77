"""Loads, measures and runs the graph of a version by its kind: a chunk cell, or a whole network."""

from dataclasses import replace

from service.contract.spec import ModelSpec
from service.engine.cell import PLAIN, Decoding
from service.engine.core import EngineCore
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.whole import WholeEngine
from service.models import tuning as chunk_tuning
from service.models import whole_tuning
from service.models.checks import shape_of
from service.models.tuning import Tuning, Wish, tune
from service.models.whole_tuning import tune_whole
from service.observability.metrics import EngineMetrics
from service.runtime import Runtime, WholeRuntime

AnyRuntime = Runtime | WholeRuntime


def load_graph(model: ModelSpec, graph: bytes, provider: str, threads: int) -> AnyRuntime:
    """Return the loaded graph; the arguments and errors are those of `service.runtime.Session`."""
    if model.network.kind == "whole":
        return WholeRuntime(graph, provider, threads)
    state = [(pair.input, pair.output) for pair in model.network.states]
    return Runtime(graph, state, provider, threads)


def tune_graph(model: ModelSpec, runtime: AnyRuntime, wish: Wish) -> Tuning:
    """Measure a graph and warm it up.

    Raises:
        ModelFailure: it fails on rows of zeros.
    """
    if isinstance(runtime, WholeRuntime):
        return tune_whole(runtime, shape_of(model), wish, steps=_steps(model))
    return tune(runtime, shape_of(model), model.generation is not None, wish)


def full_seconds(model: ModelSpec, runtime: AnyRuntime, tuning: Tuning) -> float:
    """Return the seconds of a full tick: a chunk tick, or a batch of whole sequences."""
    if isinstance(runtime, WholeRuntime):
        return whole_tuning.full_seconds(runtime, shape_of(model), tuning, steps=_steps(model))
    return chunk_tuning.full_seconds(runtime, shape_of(model), tuning)


def seconds_of_one(model: ModelSpec, runtime: AnyRuntime) -> float:
    """Return the seconds that a time step takes of a sequence that runs alone.

    Raises:
        ModelFailure: the graph fails on zeros.
    """
    if isinstance(runtime, WholeRuntime):
        return whole_tuning.seconds_of_one(runtime, shape_of(model), steps=_steps(model))
    return chunk_tuning.seconds_of_one(runtime, shape_of(model))


def engine_of(
    model: ModelSpec,
    runtime: AnyRuntime,
    limits: Limits,
    metrics: EngineMetrics,
    number: int,
    decoding: Decoding = PLAIN,
) -> EngineCore:
    """Return an engine of the model's kind.

    Args:
        model: spec of the model.
        runtime: its graph, which all of its engines share.
        limits: sizes of the engine.
        metrics: its own.
        number: its index in the group.
        decoding: its end tokens and generation graph.
    """
    if isinstance(runtime, Runtime):
        return Engine(
            model.name,
            runtime,
            shape_of(model),
            limits,
            metrics,
            number=number,
            decoding=decoding,
        )
    # The rows of a batch are all that it runs side by side.
    limits = replace(limits, slots=limits.chunk_rows)
    if model.network.padding == "none":
        limits = replace(limits, max_padding=0.0)
    return WholeEngine(model.name, runtime, shape_of(model), limits, metrics, number=number)


def _steps(model: ModelSpec) -> int:
    """Return the time steps of the sequences that a whole network is measured on."""
    window = model.network.window
    return whole_tuning.STEPS if window is None else window.to
