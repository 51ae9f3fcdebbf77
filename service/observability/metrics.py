"""All metrics of the service, each declared once. Times are histograms in seconds.

Engines update their metrics several times a tick. To keep that cheap, each engine has plain numbers of its
own, written by its thread alone, and a collector sums them by model when Prometheus scrapes.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.observability.logs import num_dropped

# 0.1 ms to 60 s: from a step tick of a small model to a long text under load.
_SECONDS = (
    1e-4,
    2.5e-4,
    5e-4,
    1e-3,
    2.5e-3,
    5e-3,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_NAMESPACE = "seqserve"
_VERSION = ("model", "version")
_TICKS = ("chunk", "step", "whole")
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Number:
    """Counter or gauge; one thread writes it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value


class Observations:
    """Histogram; one thread writes it.

    Args:
        bounds: upper bounds of the buckets, ascending; larger values go into a last bucket, +Inf.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = _SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class EngineMetrics:
    """Metrics of one engine of a model."""

    def __init__(self) -> None:
        self.queue_seconds = Observations()
        self.first_token_seconds = Observations()
        self.inter_token_seconds = Observations()
        self.tick_seconds = {kind: Observations() for kind in _TICKS}
        self.batch_rows = Observations(_ROWS)
        self.steps = {"useful": Number(), "padded": Number()}
        self.tokens_generated = Number()
        self.cancelled = Number()
        self.paused = Number()
        self.prompt_cache_hits = Number()
        self.active_sequences = Number()
        self.waiting_sequences = Number()
        self.prompt_cache_bytes = Number()
        self.is_total = False

    def ticked(self, kind: str, seconds: float, rows: int, useful: int, padded: int) -> None:
        """Record one tick: its kind (chunk, step, whole), duration, rows, useful and padded time steps."""
        self.tick_seconds[kind].observe(seconds)
        self.batch_rows.observe(rows)
        self.steps["useful"].value += useful
        self.steps["padded"].value += padded

    def add(self, other: "EngineMetrics") -> None:
        """Add the counters and histograms of an engine that has ended; its gauges no longer count."""
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(mine, dict):
                for kind, number in mine.items():
                    _add(number, theirs[kind])
            elif name not in ("is_total", "active_sequences", "waiting_sequences", "prompt_cache_bytes"):
                _add(mine, theirs)


def _add(mine: Number | Observations, theirs: Number | Observations) -> None:
    if isinstance(mine, Number) and isinstance(theirs, Number):
        mine.value += theirs.value
    elif isinstance(mine, Observations) and isinstance(theirs, Observations):
        mine.counts = [a + b for a, b in zip(mine.counts, theirs.counts, strict=True)]
        mine.sum += theirs.sum


class Metrics:
    """All metrics of one server.

    Args:
        registry: where they are registered; each server needs its own.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        # Each counter and histogram would have a series more with the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry
        self._declare_calls(partial(Counter, namespace=_NAMESPACE, registry=registry))
        self._declare_models(
            partial(Counter, namespace=_NAMESPACE, registry=registry),
            partial(Gauge, namespace=_NAMESPACE, registry=registry),
        )
        # Versions are loaded and drained by threads of their own.
        self._lock = threading.Lock()
        self._engines: list[tuple[str, EngineMetrics]] = []
        self._capacities: dict[tuple[str, int], int] = {}
        registry.register(_EngineCollector(self._engines))
        registry.register(_LogCollector())

    def _declare_calls(self, counter: Callable[..., Counter]) -> None:
        self.requests = counter("requests", "Calls ended, by method and gRPC code.", ("method", "code"))
        self.request_seconds = Histogram(
            "request_seconds",
            "Time from a call's arrival to its end.",
            ("method",),
            namespace=_NAMESPACE,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rejected = counter("rejected", "Requests refused, by reason.", ("reason",))
        self.held_bytes = Gauge(
            "held_bytes",
            "Bytes that requests hold, as estimated, and cached prompts.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.max_held_bytes = Gauge(
            "max_held_bytes",
            "Bytes that requests and cached prompts may hold.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.open_sequences = Gauge(
            "open_sequences",
            "Sequences of the Open Inference Protocol whose state is kept between requests.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.sequences_forgotten = counter(
            "sequences_forgotten", "Sequences forgotten because no request of them came in time.", ()
        )
        self.connections_shut = counter(
            "connections_shut", "Connections shut down to make room for others.", ()
        )
        self.listener_restarts = counter(
            "listener_restarts", "Times that the server stopped accepting connections and listened anew.", ()
        )

    def _declare_models(self, counter: Callable[..., Counter], gauge: Callable[..., Gauge]) -> None:
        labels = (*_VERSION, "task", "cell", "variant", "provider")
        self.model_info = gauge("model_info", "1 for each version that serves.", labels)
        self.model_slots = gauge(
            "model_slots", "Maximum active sequences, set or measured at warm-up.", _VERSION
        )
        self.model_chunk = gauge(
            "model_chunk_steps", "Maximum time steps of a chunk tick, set or measured at warm-up.", _VERSION
        )
        self.model_chunk_rows = gauge(
            "model_chunk_rows", "Maximum rows of a chunk tick or whole batch, set or measured.", _VERSION
        )
        self.max_waiting = gauge(
            "max_waiting_sequences", "Queue capacity, summed over the versions that serve.", ("model",)
        )
        self.model_load_failures = counter(
            "model_load_failures", "Versions refused, by the check that failed.", ("reason",)
        )
        self.engine_restarts = counter(
            "engine_restarts", "Versions loaded anew because their engine had failed.", ("model",)
        )

    def show_model(
        self,
        name: str,
        version: int,
        info: tuple[str, str, str, str],
        levels: tuple[int, int, int],
        max_waiting: int,
    ) -> None:
        """Set the gauges of a version that has started to serve.

        Args:
            name: name of the model.
            version: its version.
            info: task, cell, variant, provider.
            levels: maximum slots, time steps of a chunk tick, and sequences in a chunk tick.
            max_waiting: capacity of the version's queue, which all its engines share.
        """
        self.model_info.labels(name, str(version), *info).set(1)
        for gauge, level in zip(
            (self.model_slots, self.model_chunk, self.model_chunk_rows), levels, strict=True
        ):
            gauge.labels(name, str(version)).set(level)
        with self._lock:
            self._capacities[name, version] = max_waiting
            self._show_max_waiting(name)

    def hide_model(self, name: str, version: int, info: tuple[str, str, str, str]) -> None:
        """Remove the gauges of a version that no longer serves; `info` as given to `show_model`."""
        self.model_info.remove(name, str(version), *info)
        for gauge in (self.model_slots, self.model_chunk, self.model_chunk_rows):
            gauge.remove(name, str(version))
        with self._lock:
            del self._capacities[name, version]
            self._show_max_waiting(name)

    def _show_max_waiting(self, name: str) -> None:
        """Set the model's queue capacity: the sum over its versions, as for `waiting_sequences`."""
        capacities = [capacity for (model, _), capacity in self._capacities.items() if model == name]
        if capacities:
            self.max_waiting.labels(name).set(sum(capacities))
        else:
            self.max_waiting.remove(name)

    def for_model(self, model: str) -> EngineMetrics:
        """Register a new engine of a model and return its metrics; they are summed by model."""
        engine = EngineMetrics()
        with self._lock:
            self._engines.append((model, engine))
        return engine

    def prompt_cache_bytes(self) -> int:
        """Return the size of all prompt caches."""
        return int(sum(engine.prompt_cache_bytes.value for _, engine in list(self._engines)))

    def retire(self, model: str, engines: Iterable[EngineMetrics]) -> None:
        """Merge the metrics of engines that have ended into one total for the model.

        The counters must not decrease, so the counts are kept; merging bounds the memory they take.

        Args:
            model: name of the model.
            engines: metrics that no engine writes any more.
        """
        ended = list(engines)
        total = EngineMetrics()
        total.is_total = True
        with self._lock:
            totals = [one for name, one in self._engines if name == model and one.is_total]
            for one in [*ended, *totals]:
                total.add(one)
            merged = {id(one) for one in [*ended, *totals]}
            # Replace in one step: a scrape may read the list at the same time.
            self._engines[:] = [
                *((name, one) for name, one in self._engines if id(one) not in merged),
                (model, total),
            ]


class _LogCollector(Collector):
    """Exports the number of log lines that were dropped, which the log's handler counts."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        text = "Log lines dropped because stderr did not take them."
        yield CounterMetricFamily(f"{_NAMESPACE}_log_lines_dropped", text, value=num_dropped())


class _EngineCollector(Collector):
    """Exports the engines' metrics to Prometheus, summed by model."""

    def __init__(self, engines: list[tuple[str, EngineMetrics]]) -> None:
        self._engines = engines

    def describe(self) -> Iterable[Metric]:
        """Return the families, from which the registry learns their names."""
        return list(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Yield each family with the samples of all models."""
        yield from self._histograms()
        yield from self._counters()
        yield self._gauge("active_sequences", "Sequences that hold a slot.", lambda one: one.active_sequences)
        yield self._gauge(
            "waiting_sequences", "Sequences that wait for a slot.", lambda one: one.waiting_sequences
        )
        yield self._gauge(
            "prompt_cache_bytes",
            "Size of the cached prompts and of the states after them.",
            lambda one: one.prompt_cache_bytes,
        )

    def _histograms(self) -> Iterator[Metric]:
        yield self._histogram(
            "queue_seconds",
            "Time from a sequence's arrival to its slot.",
            lambda one: {(): one.queue_seconds},
        )
        yield self._histogram(
            "time_to_first_token_seconds",
            "Time from a generation's arrival to its first token.",
            lambda one: {(): one.first_token_seconds},
        )
        yield self._histogram(
            "inter_token_seconds",
            "Time between tokens of a stream, averaged over each message.",
            lambda one: {(): one.inter_token_seconds},
        )
        yield self._histogram(
            "tick_seconds",
            "Duration of a tick of the engine: chunk (prefill), step (decode), or whole sequences.",
            lambda one: {(kind,): ticks for kind, ticks in one.tick_seconds.items()},
            ("kind",),
        )
        yield self._histogram("batch_rows", "Sequences in a tick.", lambda one: {(): one.batch_rows})

    def _counters(self) -> Iterator[Metric]:
        yield self._counter(
            "steps",
            "Time steps computed, by kind: useful or padded.",
            lambda one: {(kind,): count for kind, count in one.steps.items()},
            ("kind",),
        )
        yield self._counter("tokens_generated", "Tokens sampled.", lambda one: {(): one.tokens_generated})
        yield self._counter(
            "cancelled", "Sequences cancelled by their caller.", lambda one: {(): one.cancelled}
        )
        yield self._counter(
            "paused", "Rows preempted so that another client gets its share.", lambda one: {(): one.paused}
        )
        yield self._counter(
            "prompt_cache_hits",
            "Prompts that started from a cached state.",
            lambda one: {(): one.prompt_cache_hits},
        )

    def _histogram(
        self,
        name: str,
        text: str,
        read: Callable[[EngineMetrics], dict[tuple[str, ...], Observations]],
        labels: tuple[str, ...] = (),
    ) -> Metric:
        family = HistogramMetricFamily(f"seqserve_{name}", text, labels=("model", *labels))
        found: dict[tuple[str, ...], list[Observations]] = {}
        for model, engine in list(self._engines):
            for key, observations in read(engine).items():
                found.setdefault((model, *key), []).append(observations)
        for key, parts in found.items():
            bounds = [*map(floatToGoString, parts[0].bounds), "+Inf"]
            counts = accumulate(map(sum, zip(*(part.counts for part in parts), strict=True)))
            family.add_metric(key, list(zip(bounds, counts, strict=True)), sum(part.sum for part in parts))
        return family

    def _counter(
        self,
        name: str,
        text: str,
        read: Callable[[EngineMetrics], dict[tuple[str, ...], Number]],
        labels: tuple[str, ...] = (),
    ) -> Metric:
        family = CounterMetricFamily(f"seqserve_{name}", text, labels=("model", *labels))
        found: dict[tuple[str, ...], float] = {}
        for model, engine in list(self._engines):
            for key, number in read(engine).items():
                found[model, *key] = found.get((model, *key), 0.0) + number.value
        for key, value in found.items():
            family.add_metric(key, value)
        return family

    def _gauge(self, name: str, text: str, read: Callable[[EngineMetrics], Number]) -> Metric:
        family = GaugeMetricFamily(f"seqserve_{name}", text, labels=("model",))
        found: dict[str, float] = {}
        for model, engine in list(self._engines):
            found[model] = found.get(model, 0.0) + read(engine).value
        for model, value in found.items():
            family.add_metric((model,), value)
        return family
