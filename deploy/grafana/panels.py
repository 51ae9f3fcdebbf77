"""What the dashboard shows: each row a question, each panel a part of the answer.

Expressions read the server's own metrics, not the recorded ones, so that the dashboard works without the
rules; only the alerts need them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SERVER: Final = 'job=~"$job", instance=~"$instance"'
_MODEL: Final = f'{SERVER}, model=~"$model"'
# Health checks and reflection are left out.
_WORK: Final = f'{SERVER}, method!~"/grpc[.].*"'
_ANSWERED_AT_ONCE: Final = (
    f'{SERVER}, method!~"/grpc[.].*|.*/('
    'Generate|ClassifyStream|ForecastStream|InferStream|ModelStreamInfer|WatchEngine|Load|Unload)"'
)
_OWN_FAULT: Final = 'code=~"INTERNAL|UNKNOWN|DATA_LOSS"'


@dataclass(frozen=True)
class Query:
    """One expression of a panel and the legend of its lines."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        title: what it answers.
        queries: what it shows.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the panel.
        width: of 24.
        text: how to read it.
        most: the top of the scale; None: what the data say.
        steps: values from which a level is orange, then red.
        is_stacked: whether lines are piled up.
    """

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    text: str = ""
    most: float | None = None
    steps: tuple[float, ...] = ()
    is_stacked: bool = False

    @property
    def height(self) -> int:
        """Rows of Grafana's grid."""
        return 4 if self.kind == "stat" else 8


@dataclass(frozen=True)
class Row:
    """A question and the panels that answer it."""

    title: str
    panels: Sequence[Panel]


def _rate(name: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


def _quantile(share: float, name: str, labels: str, by: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{name}_bucket', labels, f'le, {by}')})"


def _quantiles(name: str, labels: str, by: str, legend: str) -> list[Query]:
    return [
        Query(_quantile(share, name, labels, by), f"{legend} p{round(share * 100)}") for share in (0.5, 0.99)
    ]


def _share(part: str, whole: str) -> str:
    """Nothing where the whole is 0."""
    return f"{part} / ({whole} > 0)"


def _levels(name: str, by: str = "instance, model") -> str:
    return f"sum by ({by}) ({name}{{{_MODEL}}})"


def _ratio(chosen: str) -> str:
    """Of all calls, those with these codes; 0 where there are none."""
    every = f"sum(rate(seqserve_requests_total{{{_WORK}}}[$__rate_interval]))"
    return _share(
        f"(sum(rate(seqserve_requests_total{{{_WORK}, {chosen}}}[$__rate_interval])) or 0 * {every})", every
    )


ROWS: Final = (
    Row(
        "Is it healthy?",
        [
            Panel(
                "Replicas up", [Query('sum(up{job=~"$job", instance=~"$instance"})')], kind="stat", width=4
            ),
            Panel(
                "Serving replicas",
                [Query(f"count(group by (job, instance) (seqserve_model_info{{{SERVER}}})) or vector(0)")],
                kind="stat",
                width=4,
            ),
            Panel(
                "Calls",
                [Query(f"sum(rate(seqserve_requests_total{{{_WORK}}}[$__rate_interval]))")],
                "reqps",
                "stat",
                4,
            ),
            Panel(
                "Server errors",
                [Query(_ratio(_OWN_FAULT))],
                "percentunit",
                "stat",
                4,
                steps=(0.001, 0.01),
            ),
            Panel(
                "Refused",
                [Query(_ratio('code="RESOURCE_EXHAUSTED"'))],
                "percentunit",
                "stat",
                4,
                steps=(0.01, 0.05),
            ),
            Panel(
                "Alerts firing",
                [Query('count(ALERTS{alertname=~"Seqserve.*", alertstate="firing"}) or vector(0)')],
                kind="stat",
                width=4,
                text="Needs the rules of deploy/prometheus.",
                steps=(1, 2),
            ),
            Panel(
                "Calls by code",
                [Query(_rate("seqserve_requests_total", _WORK, "code"), "{{code}}")],
                "reqps",
                is_stacked=True,
            ),
            Panel(
                "Calls by method",
                [Query(_rate("seqserve_requests_total", _WORK, "method"), "{{method}}")],
                "reqps",
                is_stacked=True,
            ),
            Panel(
                "Alerts",
                [
                    Query(
                        'ALERTS{alertname=~"Seqserve.*"}',
                        "{{alertname}} {{instance}} {{model}} {{alertstate}}",
                    )
                ],
                text="1 while an alert is pending or firing. Needs the rules of deploy/prometheus.",
            ),
            Panel(
                "Restarts of engines and listeners",
                [
                    Query(_levels("seqserve_engine_restarts_total"), "{{instance}} engine of {{model}}"),
                    Query(f"seqserve_listener_restarts_total{{{SERVER}}}", "{{instance}} listener"),
                ],
                width=24,
                text="Since the start of the process; each is an error of the server.",
            ),
        ],
    ),
    Row(
        "Is it fast?",
        [
            Panel(
                "Latency of a call",
                _quantiles("seqserve_request_seconds", _ANSWERED_AT_ONCE, "method", "{{method}}"),
                "s",
                text="Without streams, whose length the caller decides, and without Load and Unload.",
            ),
            Panel(
                "Time to first token",
                _quantiles("seqserve_time_to_first_token_seconds", _MODEL, "model", "{{model}}"),
                "s",
                text="From a generation's arrival.",
            ),
            Panel(
                "Time between tokens",
                _quantiles("seqserve_inter_token_seconds", _MODEL, "model", "{{model}}"),
                "s",
                text="Averaged over each message.",
            ),
            Panel(
                "Queue time",
                _quantiles("seqserve_queue_seconds", _MODEL, "model", "{{model}}"),
                "s",
                text="From a sequence's arrival to its slot.",
            ),
            Panel(
                "Tick duration",
                _quantiles("seqserve_tick_seconds", _MODEL, "model, kind", "{{model}} {{kind}}"),
                "s",
            ),
            Panel(
                "Tokens",
                [Query(_rate("seqserve_tokens_generated_total", _MODEL, "model"), "{{model}}")],
                "short",
                text="Generated per second.",
            ),
        ],
    ),
    Row(
        "Is it full?",
        [
            Panel(
                "Slots in use",
                [
                    Query(
                        f"{_levels('seqserve_active_sequences')} / {_levels('seqserve_model_slots')}",
                        "{{instance}} {{model}}",
                    )
                ],
                "percentunit",
                most=1,
            ),
            Panel(
                "Queue filled",
                [
                    Query(
                        (
                            f"{_levels('seqserve_waiting_sequences')} "
                            f"/ {_levels('seqserve_max_waiting_sequences')}"
                        ),
                        "{{instance}} {{model}}",
                    )
                ],
                "percentunit",
                text="At 100 % requests are refused.",
                most=1,
            ),
            Panel(
                "Memory held by requests",
                [
                    Query(
                        f"seqserve_held_bytes{{{SERVER}}} / seqserve_max_held_bytes{{{SERVER}}}",
                        "{{instance}}",
                    )
                ],
                "percentunit",
                text="Estimated. A caller may hold at most as much as nobody holds.",
                most=1,
            ),
            Panel(
                "Refused by reason",
                [Query(_rate("seqserve_rejected_total", SERVER, "reason"), "{{reason}}")],
                "reqps",
            ),
            Panel(
                "Sequences",
                [
                    Query(_levels("seqserve_active_sequences", "model"), "{{model}} active"),
                    Query(_levels("seqserve_waiting_sequences", "model"), "{{model}} waiting"),
                ],
            ),
            Panel(
                "Preempted and cancelled",
                [
                    Query(_rate("seqserve_paused_total", _MODEL, "model"), "{{model}} preempted"),
                    Query(_rate("seqserve_cancelled_total", _MODEL, "model"), "{{model}} cancelled"),
                ],
                text="Per second. Preempted: for another client; cancelled: by the caller.",
            ),
            Panel(
                "Processor",
                [
                    Query(
                        f"sum by (instance) (rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval]))",
                        "{{instance}}",
                    )
                ],
                text="Cores.",
            ),
            Panel(
                "Memory",
                [Query(f"process_resident_memory_bytes{{{SERVER}}}", "{{instance}}")],
                "bytes",
                width=12,
            ),
            Panel(
                "Files in use",
                [Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}")],
                "percentunit",
                width=12,
                text="Each connection is a file.",
                most=1,
            ),
        ],
    ),
    Row(
        "Is the batch useful?",
        [
            Panel(
                "Time steps, useful and padded",
                [Query(_rate("seqserve_steps_total", _MODEL, "kind"), "{{kind}}")],
                text="Per second.",
                is_stacked=True,
            ),
            Panel(
                "Useful share of time steps",
                [
                    Query(
                        _share(
                            _rate("seqserve_steps_total", f'{_MODEL}, kind="useful"', "model"),
                            _rate("seqserve_steps_total", _MODEL, "model"),
                        ),
                        "{{model}}",
                    )
                ],
                "percentunit",
                most=1,
            ),
            Panel(
                "Rows per tick, mean",
                [
                    Query(
                        _share(
                            _rate("seqserve_batch_rows_sum", _MODEL, "model"),
                            _rate("seqserve_batch_rows_count", _MODEL, "model"),
                        ),
                        "{{model}}",
                    )
                ],
            ),
            Panel("Rows per tick", _quantiles("seqserve_batch_rows", _MODEL, "model", "{{model}}")),
            Panel(
                "Ticks",
                [Query(_rate("seqserve_tick_seconds_count", _MODEL, "model, kind"), "{{model}} {{kind}}")],
                text="Per second.",
            ),
            Panel(
                "Prompt cache hits",
                [Query(_rate("seqserve_prompt_cache_hits_total", _MODEL, "model"), "{{model}}")],
                text="Per second: prompts that started from a cached state.",
            ),
        ],
    ),
    Row(
        "Which version serves?",
        [
            Panel(
                "Serving versions",
                [
                    Query(
                        "count by (model, version, task, cell, variant, provider) "
                        f"(seqserve_model_info{{{_MODEL}}})"
                    )
                ],
                kind="table",
                width=12,
                text="Value: number of replicas.",
            ),
            Panel(
                "Replicas by version",
                [
                    Query(
                        f"count by (model, version) (seqserve_model_info{{{_MODEL}}})",
                        "{{model}} {{version}}",
                    )
                ],
                width=12,
            ),
            Panel(
                "Sizes in use",
                [
                    Query(
                        f"max by (model, version) (seqserve_model_slots{{{_MODEL}}})",
                        "{{model}} {{version}} slots",
                    ),
                    Query(
                        f"max by (model, version) (seqserve_model_chunk_steps{{{_MODEL}}})",
                        "{{model}} {{version}} steps of a chunk tick",
                    ),
                    Query(
                        f"max by (model, version) (seqserve_model_chunk_rows{{{_MODEL}}})",
                        "{{model}} {{version}} rows of a chunk tick",
                    ),
                ],
                width=12,
                text="Set, or measured at load.",
            ),
            Panel(
                "Versions refused",
                [
                    Query(
                        f"sum by (instance, reason) (seqserve_model_load_failures_total{{{SERVER}}})",
                        "{{instance}} {{reason}}",
                    )
                ],
                width=12,
                text="Since the start of the process, by the check that failed.",
            ),
        ],
    ),
)
