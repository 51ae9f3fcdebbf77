"""Every metric once. Times are histograms in seconds."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# 0.1 ms to 60 s: a step tick of a small model to a long text under load.
_SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_TICKS = ("chunk", "step")
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The server's metrics in one registry.

    Args:
        registry: where they are collected; one a server.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"seqserve_{name}", text, labels, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"seqserve_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...]) -> Gauge:
            return Gauge(f"seqserve_{name}", text, labels, registry=registry)

        self.registry = registry
        self.requests = counter("requests", "Calls ended, by method and gRPC code.", ("method", "code"))
        self.request_seconds = histogram("request_seconds", "From a call's arrival to its end.", ("method",))
        self.queue_seconds = histogram("queue_seconds", "From a sequence's arrival to its slot.", ("model",))
        self.first_token_seconds = histogram("time_to_first_token_seconds", "From a generation's arrival to its first token.", ("model",))
        self.inter_token_seconds = histogram("inter_token_seconds", "Between tokens of a stream, averaged over each message.", ("model",))
        self.tick_seconds = histogram("tick_seconds", "One tick of the engine: chunk (prefill) or step (decode).", ("model", "kind"))
        self.batch_rows = histogram("batch_rows", "Sequences in a tick.", ("model",), _ROWS)
        self.steps = counter("steps", "Time steps computed: useful ones and padding.", ("model", "kind"))
        self.tokens_generated = counter("tokens_generated", "Tokens sampled.", ("model",))
        self.active_sequences = gauge("active_sequences", "Sequences that hold a slot.", ("model",))
        self.waiting_sequences = gauge("waiting_sequences", "Sequences that wait for a slot.", ("model",))
        self.rejected = counter("rejected", "Requests refused, by reason.", ("reason",))
        self.cancelled = counter("cancelled", "Sequences whose caller left before the end.", ("model",))
        self.model_info = gauge("model_info", "1 for each version that serves.", ("model", "version", "task", "cell", "variant", "provider"))
        self.model_load_failures = counter("model_load_failures", "Versions refused, by the check that failed.", ("reason",))

    def for_model(self, model: str) -> "EngineMetrics":
        """The part that a model's engine writes, its label bound."""
        return EngineMetrics(self, model)


class EngineMetrics:
    """One model's engine metrics with labels looked up once, not once a tick."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.queue_seconds = metrics.queue_seconds.labels(model)
        self.first_token_seconds = metrics.first_token_seconds.labels(model)
        self.inter_token_seconds = metrics.inter_token_seconds.labels(model)
        self.tokens_generated = metrics.tokens_generated.labels(model)
        self.active_sequences = metrics.active_sequences.labels(model)
        self.waiting_sequences = metrics.waiting_sequences.labels(model)
        self.cancelled = metrics.cancelled.labels(model)
        self._tick_seconds = {kind: metrics.tick_seconds.labels(model, kind) for kind in _TICKS}
        self._batch_rows = metrics.batch_rows.labels(model)
        self._useful = metrics.steps.labels(model, "useful")
        self._padded = metrics.steps.labels(model, "padded")

    def ticked(self, kind: str, seconds: float, rows: int, useful: int, padded: int) -> None:
        """Count one tick: its kind (chunk or step), duration, rows, valid time steps and padded ones."""
        self._tick_seconds[kind].observe(seconds)
        self._batch_rows.observe(rows)
        self._useful.inc(useful)
        if padded:
            self._padded.inc(padded)
