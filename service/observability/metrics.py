"""Every metric once. Times are histograms in seconds.

What engines count they count several times a tick, so each keeps plain numbers, written by one thread alone,
that are read when Prometheus scrapes.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# 0.1 ms to 60 s: a step tick of a small model to a long text under load.
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
_TICKS = ("chunk", "step")
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Number:
    """A count that goes up, or a level that is set; one thread writes."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add."""
        self.value += amount

    def set(self, value: float) -> None:
        """Replace."""
        self.value = value


class Observations:
    """A histogram; one thread writes.

    Args:
        bounds: upper ones of the buckets, rising; what is above the last counts all the same.
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
    """What one engine of a model counts."""

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
        self.is_past = False

    def ticked(self, kind: str, seconds: float, rows: int, useful: int, padded: int) -> None:
        """Count one tick: its kind (chunk or step), duration, rows, valid time steps and padded ones."""
        self.tick_seconds[kind].observe(seconds)
        self.batch_rows.observe(rows)
        self.steps["useful"].value += useful
        self.steps["padded"].value += padded

    def add(self, other: "EngineMetrics") -> None:
        """Take over the counts of an engine that has ended; its levels are nothing now."""
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            if isinstance(mine, dict):
                for kind, number in mine.items():
                    _add(number, theirs[kind])
            elif name not in ("is_past", "active_sequences", "waiting_sequences"):
                _add(mine, theirs)


def _add(mine: Number | Observations, theirs: Number | Observations) -> None:
    if isinstance(mine, Number) and isinstance(theirs, Number):
        mine.value += theirs.value
    elif isinstance(mine, Observations) and isinstance(theirs, Observations):
        mine.counts = [a + b for a, b in zip(mine.counts, theirs.counts, strict=True)]
        mine.sum += theirs.sum


class Metrics:
    """The server's metrics in one registry.

    Args:
        registry: where they are collected; one a server.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"seqserve_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(f"seqserve_{name}", text, labels, registry=registry)

        self.registry = registry
        self.requests = counter("requests", "Calls ended, by method and gRPC code.", ("method", "code"))
        self.request_seconds = Histogram(
            "seqserve_request_seconds",
            "From a call's arrival to its end.",
            ("method",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.rejected = counter("rejected", "Requests refused, by reason.", ("reason",))
        self.listener_restarts = counter(
            "listener_restarts", "Times that accepting connections had ended and was begun anew.", ()
        )
        self.model_info = gauge(
            "model_info",
            "1 for each version that serves.",
            ("model", "version", "task", "cell", "variant", "provider"),
        )
        self.model_slots = gauge(
            "model_slots",
            "Most sequences active side by side, as set or measured at warm-up.",
            ("model", "version"),
        )
        self.model_chunk = gauge(
            "model_chunk_steps",
            "Most time steps of a chunk tick, as set or measured at warm-up.",
            ("model", "version"),
        )
        self.model_chunk_rows = gauge(
            "model_chunk_rows",
            "Most sequences in a chunk tick, as set or measured at warm-up.",
            ("model", "version"),
        )
        self.max_waiting = gauge(
            "max_waiting_sequences",
            "Most sequences that may wait for a slot, in all versions that serve.",
            ("model",),
        )
        self.model_load_failures = counter(
            "model_load_failures", "Versions refused, by the check that failed.", ("reason",)
        )
        # Loads and drains come from threads of their own.
        self._lock = threading.Lock()
        self._engines: list[tuple[str, EngineMetrics]] = []
        self._bounds: dict[tuple[str, int], int] = {}
        registry.register(_EngineCollector(self._engines))

    def show_model(
        self,
        name: str,
        version: int,
        info: tuple[str, str, str, str],
        levels: tuple[int, int, int],
        max_waiting: int,
    ) -> None:
        """A version serves.

        Args:
            name, version: which.
            info: task, cell, variant, provider.
            levels: slots, time steps and sequences of a chunk tick.
            max_waiting: sequences that may wait in its queue, which all its engines share.
        """
        self.model_info.labels(name, str(version), *info).set(1)
        for gauge, level in zip(
            (self.model_slots, self.model_chunk, self.model_chunk_rows), levels, strict=True
        ):
            gauge.labels(name, str(version)).set(level)
        with self._lock:
            self._bounds[name, version] = max_waiting
            self._show_max_waiting(name)

    def hide_model(self, name: str, version: int, info: tuple[str, str, str, str]) -> None:
        """A version that was shown with this `info` takes requests no more: its gauges go."""
        self.model_info.remove(name, str(version), *info)
        for gauge in (self.model_slots, self.model_chunk, self.model_chunk_rows):
            gauge.remove(name, str(version))
        with self._lock:
            del self._bounds[name, version]
            self._show_max_waiting(name)

    def _show_max_waiting(self, name: str) -> None:
        """As `waiting_sequences` is summed over a model's versions, each with a queue of its own, so is what
        they have room for.
        """
        bounds = [bound for (model, _), bound in self._bounds.items() if model == name]
        if bounds:
            self.max_waiting.labels(name).set(sum(bounds))
        else:
            self.max_waiting.remove(name)

    def for_model(self, model: str) -> EngineMetrics:
        """What a new engine of a model writes; engines of one model are added up."""
        engine = EngineMetrics()
        with self._lock:
            self._engines.append((model, engine))
        return engine

    def retire(self, model: str, engines: Iterable[EngineMetrics]) -> None:
        """Engines that have ended: their counts stay in the model's sums, which must not fall, and take no
        more room of their own.

        Args:
            model: whose they were.
            engines: none writes any more.
        """
        ended = list(engines)
        total = EngineMetrics()
        total.is_past = True
        with self._lock:
            past = [one for name, one in self._engines if name == model and one.is_past]
            for one in [*ended, *past]:
                total.add(one)
            gone = {id(one) for one in [*ended, *past]}
            # In one step, for a scrape may read meanwhile.
            self._engines[:] = [
                *((name, one) for name, one in self._engines if id(one) not in gone),
                (model, total),
            ]


class _EngineCollector(Collector):
    """The engines' numbers as Prometheus' metrics, summed by model."""

    def __init__(self, engines: list[tuple[str, EngineMetrics]]) -> None:
        self._engines = engines

    def describe(self) -> Iterable[Metric]:
        """The families, so that the registry knows their names."""
        return list(self.collect())

    def collect(self) -> Iterator[Metric]:
        """One family after the other, each with all models."""
        yield self._histogram(
            "queue_seconds", "From a sequence's arrival to its slot.", lambda one: {(): one.queue_seconds}
        )
        yield self._histogram(
            "time_to_first_token_seconds",
            "From a generation's arrival to its first token.",
            lambda one: {(): one.first_token_seconds},
        )
        yield self._histogram(
            "inter_token_seconds",
            "Between tokens of a stream, averaged over each message.",
            lambda one: {(): one.inter_token_seconds},
        )
        yield self._histogram(
            "tick_seconds",
            "One tick of the engine: chunk (prefill) or step (decode).",
            lambda one: {(kind,): ticks for kind, ticks in one.tick_seconds.items()},
            ("kind",),
        )
        yield self._histogram("batch_rows", "Sequences in a tick.", lambda one: {(): one.batch_rows})
        yield self._counter(
            "steps",
            "Time steps computed: useful ones and padding.",
            lambda one: {(kind,): count for kind, count in one.steps.items()},
            ("kind",),
        )
        yield self._counter("tokens_generated", "Tokens sampled.", lambda one: {(): one.tokens_generated})
        yield self._counter(
            "cancelled", "Sequences whose caller left before the end.", lambda one: {(): one.cancelled}
        )
        yield self._counter(
            "paused", "Rows paused so that another client gets its part.", lambda one: {(): one.paused}
        )
        yield self._counter(
            "prompt_cache_hits",
            "Prompts that started from a kept state or shared a run.",
            lambda one: {(): one.prompt_cache_hits},
        )
        yield self._gauge("active_sequences", "Sequences that hold a slot.", lambda one: one.active_sequences)
        yield self._gauge(
            "waiting_sequences", "Sequences that wait for a slot.", lambda one: one.waiting_sequences
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
