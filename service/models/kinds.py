"""Loads, measures and runs the graph of a version by its kind: a chunk cell, or a whole network."""

from dataclasses import replace

from service.contract.spec import ModelSpec
from service.engine.core import EngineCore
from service.engine.engine import Engine
from service.engine.limits import Limits
from service.engine.whole import WholeEngine
from service.models.checks import shape_of
from service.models.tuning import Tuning, Wish, is_faster, tune
from service.models.whole_tuning import is_faster_whole, tune_whole
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
        return tune_whole(runtime, shape_of(model), wish)
    return tune(runtime, shape_of(model), model.generation is not None, wish)


def is_faster_graph(model: ModelSpec, runtime: AnyRuntime, other: AnyRuntime, tuning: Tuning) -> bool:
    """Return whether a loaded graph runs full ticks clearly faster than the same graph loaded otherwise."""
    if isinstance(runtime, WholeRuntime) and isinstance(other, WholeRuntime):
        return is_faster_whole(runtime, other, shape_of(model), tuning)
    assert isinstance(runtime, Runtime), "both are of the model's kind"
    assert isinstance(other, Runtime), "both are of the model's kind"
    return is_faster(runtime, other, shape_of(model), tuning)


def engine_of(
    model: ModelSpec, runtime: AnyRuntime, limits: Limits, metrics: EngineMetrics, number: int
) -> EngineCore:
    """Return an engine of the model's kind.

    Args:
        model: spec of the model.
        runtime: its graph, which all of its engines share.
        limits: sizes of the engine.
        metrics: its own.
        number: its index in the group.
    """
    if isinstance(runtime, Runtime):
        end_tokens = () if model.generation is None else model.generation.end_tokens
        return Engine(
            model.name, runtime, shape_of(model), limits, metrics, number=number, end_tokens=end_tokens
        )
    # The rows of a batch are all that it runs side by side.
    limits = replace(limits, slots=limits.chunk_rows)
    if model.network.padding == "none":
        limits = replace(limits, max_padding=0.0)
    return WholeEngine(model.name, runtime, shape_of(model), limits, metrics, number=number)
