"""service.models.kinds: whole networks from their folders to engines that answer."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service.contract import spec
from service.engine.core import EngineCore
from service.engine.engine import Engine
from service.engine.group import EngineGroup
from service.engine.request import Goal, Request
from service.engine.streaming import deliver
from service.engine.whole import WholeEngine
from service.errors import ModelFailure
from service.models.kinds import AnyRuntime, engine_of, full_seconds, load_graph, seconds_of_one, tune_graph
from service.models.loading import Loader
from service.models.tuning import Wish, is_clearly_less
from service.observability.metrics import EngineMetrics, Metrics
from service.runtime import Runtime
from tests import contract2
from tests.contract2_graphs import Net
from tests.service.builders import TrialHere, loop_here, settings_of
from tests.service.engine.fakes import kinds_of, received, row_of
from tests.service.models.test_loading import ignore_failure, served_of

LENGTHS = (9, 1, 9, 14, 10, 2, 9)


def loaded(net: Net, folder: Path) -> tuple[spec.ModelSpec, AnyRuntime]:
    """Export a model of contract 2, and load its graph."""
    model, _, files = spec.read_version(contract2.export(net, folder))
    return model, load_graph(model, files[contract2.GRAPH], "cpu", 1)


def engines_of(model: spec.ModelSpec, runtime: AnyRuntime, **changes: Any) -> EngineGroup:
    """Tune a graph, and have the loader make its engines."""
    settings = settings_of(Path(), **changes)
    loader = Loader(settings, Metrics(CollectorRegistry()), loop_here(), ignore_failure, TrialHere(settings))
    tuning = tune_graph(model, runtime, Wish(settings.slots, settings.chunk, settings.chunk_rows))
    counts = [EngineMetrics() for _ in range(settings.engines or 1)]
    return loader._engines(model, runtime, tuning, counts)


def run_to_the_end(engine: EngineCore) -> None:
    is_busy = True
    while is_busy:
        turn = engine.run_turn()
        engine.check_integrity()
        deliver(turn.outputs)
        is_busy = turn.is_busy


@pytest.mark.parametrize("net", contract2.WHOLE_NETS, ids=lambda net: net.name)
def test_whole_network_answers_in_its_engine_as_alone(net: Net, tmp_path: Path) -> None:
    model, runtime = loaded(net, tmp_path)
    group = engines_of(model, runtime)
    goal = Goal.EVERY if net.whole == "every" else Goal.LAST
    rows = [row_of(Request(one, goal)) for one in contract2.sequences_of(net, LENGTHS)]
    group.submit(rows)
    [engine] = group.engines
    assert isinstance(engine, WholeEngine)
    run_to_the_end(engine)
    reference = contract2.Reference(net)
    for row in rows:
        right = reference.outputs(row.request.inputs)
        np.testing.assert_array_equal(received(row)[0], right if goal is Goal.EVERY else right[0])


def test_networks_of_equal_lengths_alone_get_no_padding(tmp_path: Path) -> None:
    groups = {net.name: engines_of(*loaded(net, tmp_path)) for net in (contract2.POOLED, contract2.EQUAL)}
    assert groups["pooled"].engines[0].limits.max_padding == 0.1
    assert groups["equal"].engines[0].limits.max_padding == 0.0


def test_slots_that_are_set_bound_the_rows_of_all_engines_batches(tmp_path: Path) -> None:
    group = engines_of(*loaded(contract2.POOLED, tmp_path), engines=2, slots=3)
    assert [engine.limits.chunk_rows for engine in group.engines] == [1, 2]
    assert group.slots == 3
    wide = engines_of(*loaded(contract2.POOLED, tmp_path / "wide"), engines=2, slots=1000)
    assert all(engine.limits.slots == engine.limits.chunk_rows <= 32 for engine in wide.engines)


def test_chunk_cell_is_cut_in_time(tmp_path: Path) -> None:
    model, runtime = loaded(contract2.ACTIVITY, tmp_path)
    assert isinstance(runtime, Runtime)
    assert isinstance(engines_of(model, runtime).engines[0], Engine)


@pytest.mark.parametrize("net", [contract2.ACTIVITY, contract2.POOLED], ids=lambda net: net.name)
def test_graph_is_not_clearly_faster_than_itself(net: Net, tmp_path: Path) -> None:
    model, runtime = loaded(net, tmp_path)
    tuning = tune_graph(model, runtime, Wish())
    times = [full_seconds(model, runtime, tuning) for _ in range(10)]
    assert not all(is_clearly_less(one, other) for one, other in pairwise(times))


@pytest.mark.parametrize("net", [contract2.ACTIVITY, contract2.POOLED], ids=lambda net: net.name)
def test_time_step_costs_less_beside_others_than_alone(net: Net, tmp_path: Path) -> None:
    model, runtime = loaded(net, tmp_path)
    tuning = tune_graph(model, runtime, Wish())
    assert 0 < 1 / tuning.steps_per_second < seconds_of_one(model, runtime) < 0.1


def test_version_that_stops_ends_the_runs_of_its_whole_network(models: Path, tmp_path: Path) -> None:
    """A run cannot be cut, and whoever stops a version waits for its driver."""
    model, runtime = loaded(contract2.POOLED, tmp_path)
    group = engines_of(model, runtime)
    replace(served_of(models), runtime=runtime).stop()
    row = row_of(Request(contract2.sequences_of(contract2.POOLED)[0], Goal.LAST))
    group.submit([row])
    run_to_the_end(group.engines[0])
    assert kinds_of(row) == [ModelFailure]


def test_engine_knows_its_number(tmp_path: Path) -> None:
    model, runtime = loaded(contract2.POOLED, tmp_path)
    limits = tune_graph(model, runtime, Wish()).limits(0.0, 0)
    assert engine_of(model, runtime, limits, EngineMetrics(), 3).facts.number == 3
