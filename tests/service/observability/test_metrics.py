"""service.observability.metrics: the names of the design, as Prometheus sees them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from service.engine.scheduler import Tick
from service.observability.metrics import Metrics, Observations

# Name in the exposition, and its labels.
COUNTERS = {
    "seqserve_requests_total": ("method", "code"),
    "seqserve_steps_total": ("model", "kind"),
    "seqserve_tokens_generated_total": ("model",),
    "seqserve_rejected_total": ("reason",),
    "seqserve_cancelled_total": ("model",),
    "seqserve_paused_total": ("model",),
    "seqserve_prompt_cache_hits_total": ("model",),
    "seqserve_model_load_failures_total": ("reason",),
    "seqserve_engine_restarts_total": ("model",),
    "seqserve_connections_shut_total": (),
    "seqserve_sequences_forgotten_total": (),
    "seqserve_listener_restarts_total": (),
    "seqserve_log_lines_dropped_total": (),
}
GAUGES = {
    "seqserve_active_sequences": ("model",),
    "seqserve_waiting_sequences": ("model",),
    "seqserve_max_waiting_sequences": ("model",),
    "seqserve_prompt_cache_bytes": ("model",),
    "seqserve_held_bytes": (),
    "seqserve_open_sequences": (),
    "seqserve_max_held_bytes": (),
    "seqserve_model_slots": ("model", "version"),
    "seqserve_model_chunk_steps": ("model", "version"),
    "seqserve_model_chunk_rows": ("model", "version"),
    "seqserve_model_info": ("model", "version", "task", "cell", "variant", "provider"),
}
HISTOGRAMS = {
    "seqserve_request_seconds": ("method",),
    "seqserve_queue_seconds": ("model",),
    "seqserve_time_to_first_token_seconds": ("model",),
    "seqserve_inter_token_seconds": ("model",),
    "seqserve_tick_seconds": ("model", "kind"),
    "seqserve_batch_rows": ("model",),
}


def used() -> Metrics:
    """Return every metric with one sample."""
    metrics = Metrics(CollectorRegistry())
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            child: Any = metric.labels(*["x"] * len(metric._labelnames)) if metric._labelnames else metric
            child.observe(0.5) if hasattr(child, "observe") else child.inc()
    engine = metrics.for_model("x")
    for kind in Tick:
        engine.ticked(kind.value, 0.5, rows=2, useful=3, padded=1)
    return metrics


def exposed(metrics: Metrics) -> dict[str, set[str]]:
    """Return sample names and the labels that they carry."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found[sample.name] = set(sample.labels)
    return found


@pytest.mark.parametrize(("name", "labels"), [*COUNTERS.items(), *GAUGES.items()])
def test_counter_or_gauge_is_exposed_under_its_name(name: str, labels: tuple[str, ...]) -> None:
    assert exposed(used())[name] == set(labels)


@pytest.mark.parametrize(("name", "labels"), HISTOGRAMS.items())
def test_histogram_is_exposed_with_buckets_sum_and_count(name: str, labels: tuple[str, ...]) -> None:
    found = exposed(used())
    assert found[f"{name}_bucket"] == {*labels, "le"}
    assert found[f"{name}_sum"] == found[f"{name}_count"] == set(labels)


def test_nothing_else_is_exposed() -> None:
    histograms = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    assert set(exposed(used())) <= {*COUNTERS, *GAUGES, *histograms}


def test_openmetrics_has_the_same_series() -> None:
    text = openmetrics.generate_latest(used().registry).decode()  # type: ignore[no-untyped-call]
    families = list(openmetrics_families(text))  # type: ignore[no-untyped-call]
    assert {sample.name for family in families for sample in family.samples} == set(exposed(used()))


def test_every_metric_is_described() -> None:
    families = text_string_to_metric_families(generate_latest(used().registry).decode())
    assert all(family.documentation for family in families)


def test_tick_counts_kind_rows_and_steps_of_its_model() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.for_model("a").ticked(Tick.CHUNK.value, 0.25, rows=3, useful=10, padded=2)
    metrics.for_model("a").ticked(Tick.STEP.value, 0.5, rows=1, useful=1, padded=0)
    value = metrics.registry.get_sample_value
    assert value("seqserve_steps_total", {"model": "a", "kind": "useful"}) == 11
    assert value("seqserve_steps_total", {"model": "a", "kind": "padded"}) == 2
    assert value("seqserve_batch_rows_sum", {"model": "a"}) == 4
    assert value("seqserve_tick_seconds_sum", {"model": "a", "kind": "chunk"}) == 0.25
    assert value("seqserve_tick_seconds_sum", {"model": "a", "kind": "step"}) == 0.5


def test_engines_of_one_model_are_added_up() -> None:
    metrics = Metrics(CollectorRegistry())
    for seconds in (0.0002, 0.3):
        engine = metrics.for_model("a")
        engine.queue_seconds.observe(seconds)
        engine.active_sequences.set(3)
    value = metrics.registry.get_sample_value
    assert value("seqserve_queue_seconds_count", {"model": "a"}) == 2
    assert value("seqserve_queue_seconds_bucket", {"model": "a", "le": "0.00025"}) == 1
    assert value("seqserve_queue_seconds_bucket", {"model": "a", "le": "+Inf"}) == 2
    assert value("seqserve_active_sequences", {"model": "a"}) == 6


@given(st.lists(st.floats(0, 100), max_size=30))
def test_observations_fall_into_the_buckets_of_the_library(values: list[float]) -> None:
    registry = CollectorRegistry()
    library = Histogram(
        "right", "The same by prometheus_client.", buckets=Observations().bounds, registry=registry
    )
    metrics = Metrics(CollectorRegistry())
    engine = metrics.for_model("a")
    for one in values:
        library.observe(one)
        engine.queue_seconds.observe(one)
    for bound in [*map(str, Observations().bounds), "+Inf"]:
        found = metrics.registry.get_sample_value(
            "seqserve_queue_seconds_bucket", {"model": "a", "le": bound}
        )
        assert found == registry.get_sample_value("right_bucket", {"le": bound})


def test_models_are_counted_apart() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.for_model("a").cancelled.inc()
    assert metrics.registry.get_sample_value("seqserve_cancelled_total", {"model": "a"}) == 1
    assert not metrics.registry.get_sample_value("seqserve_cancelled_total", {"model": "b"})


def test_queue_bound_is_that_of_the_versions_that_serve() -> None:
    metrics = Metrics(CollectorRegistry())
    info = ("text-generation", "lstm", "fp32", "CPUExecutionProvider")

    def bound(model: str = "letters") -> float | None:
        return metrics.registry.get_sample_value("seqserve_max_waiting_sequences", {"model": model})

    assert bound() is None
    metrics.show_model("letters", 1, info, (1, 1, 1), 100)
    metrics.show_model("moods", 1, info, (1, 1, 1), 100)
    assert bound() == 100
    metrics.show_model("letters", 2, info, (1, 1, 1), 100)
    assert bound() == 200
    metrics.hide_model("letters", 1, info)
    assert bound() == 100
    metrics.hide_model("letters", 2, info)
    assert bound() is None
    assert bound("moods") == 100


def test_servers_are_counted_apart() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.rejected.labels("QUEUE_FULL").inc()
    assert second.registry.get_sample_value("seqserve_rejected_total", {"reason": "QUEUE_FULL"}) is None


def test_counts_of_engines_that_have_ended_stay_and_their_levels_go() -> None:
    metrics = Metrics(CollectorRegistry())
    for round_ in range(1, 4):
        engine = metrics.for_model("letters")
        engine.tokens_generated.inc(10)
        engine.steps["useful"].inc(3)
        engine.queue_seconds.observe(0.01)
        engine.active_sequences.set(2)
        metrics.retire("letters", [engine])
        value = metrics.registry.get_sample_value
        assert value("seqserve_tokens_generated_total", {"model": "letters"}) == 10 * round_
        assert value("seqserve_steps_total", {"model": "letters", "kind": "useful"}) == 3 * round_
        assert value("seqserve_queue_seconds_count", {"model": "letters"}) == round_
        assert value("seqserve_active_sequences", {"model": "letters"}) == 0
