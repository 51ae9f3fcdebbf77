"""The reference of the metrics, from their declarations in service/observability/metrics.py."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from service.engine.scheduler import Tick
from service.observability.metrics import Metrics
from tools.site.text import cell, table

PATH: Final = "reference/metrics.md"
_MODEL: Final = "x"

_HEAD: Final = """# Metrics
Every metric that the server declares, as `/metrics` exposes it. What to watch, alerts and the dashboard are in
[observability.md](../observability.md). Beside these there are the `process_*` and `python_*` metrics of prometheus-client."""  # noqa: E501


def page() -> str:
    """Return the page: a table of all metrics, and the bounds of the histograms' buckets."""
    families = sorted(_families(), key=lambda family: family.name)
    rows = (
        (f"`{_exposed_name(one)}`", one.type, _labels(one), cell(one.documentation.rstrip(".")))
        for one in families
    )
    parts = [
        _HEAD,
        table(("metric", "type", "labels", "meaning"), rows),
        "## Buckets of the histograms",
        "Upper bounds; beyond the last there is `+Inf`. Those of times are in seconds.",
        table(("metric", "bounds"), _buckets(families)),
    ]
    return "\n\n".join(parts) + "\n"


def _families() -> list[Metric]:
    """Return every family of a server with one sample of each, so that the samples tell the labels."""
    metrics = Metrics(CollectorRegistry())
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            _add_sample(metric)
    engine = metrics.for_model(_MODEL)
    for kind in Tick:
        engine.ticked(kind.value, 0.5, rows=1, useful=1, padded=1)
    return list(metrics.registry.collect())


def _add_sample(metric: MetricWrapperBase) -> None:
    """Make a metric with labels export one child; one without labels has its sample from the beginning."""
    names = metric._labelnames
    if names:
        metric.labels(*[_MODEL] * len(names))


def _exposed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    """Return the labels in order; those whose values the server fixes, such as `kind`, with their values."""
    found: dict[str, list[str]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            if name != "le" and value not in found.setdefault(name, []):
                found[name].append(value)
    return ", ".join(_label(name, values) for name, values in found.items())


def _label(name: str, values: Iterable[str]) -> str:
    fixed = [f"`{value}`" for value in values if value != _MODEL]
    return f"`{name}` ({', '.join(fixed)})" if fixed else f"`{name}`"


def _buckets(families: Iterable[Metric]) -> Iterator[tuple[str, str]]:
    for family in families:
        if family.type == "histogram":
            bounds = dict.fromkeys(one.labels["le"] for one in family.samples if "le" in one.labels)
            yield f"`{family.name}`", ", ".join(f"{float(one):g}" for one in bounds if one != "+Inf")
