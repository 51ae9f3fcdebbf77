"""Figures of a run, for tables, for JSON and for pass/fail bounds.

This module has no clock and no network access.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seqserve.bench.loops import Plan
from seqserve.bench.record import OK, Record

UNSENT = "not sent"
UNFINISHED = "unfinished"

# The load generator is the bottleneck if its p99 lag exceeds both this and this share of the p99 latency.
BOTTLENECK_LAG_S = 0.002
BOTTLENECK_SHARE = 0.1

FIGURES = (
    "p50",
    "p90",
    "p99",
    "max",
    "mean",
    "first_token_p50",
    "first_token_p99",
    "between_tokens_p50",
    "between_tokens_p99",
    "requests_per_second",
    "good_per_second",
    "tokens_per_second",
    "good_share",
    "errors",
    "error_share",
    "lag_p99",
)
"""The figures that bounds can be set on; times are in seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run.

    Attributes:
        plan: The parameters of the run.
        record: Its counts and latencies.
        interrupted: Whether it was interrupted before its end.
    """

    plan: Plan
    record: Record
    interrupted: bool = False

    @property
    def window_s(self) -> float:
        """Length of the measurement window in seconds; 0 if interrupted during warm-up."""
        return max(0.0, self.record.closes - self.record.opens)

    @property
    def codes(self) -> dict[str, int]:
        """Number of requests by outcome, most frequent failure first; they sum to all requests."""
        record = self.record
        others = {**dict(record.failures.most_common()), UNSENT: record.unsent, UNFINISHED: record.unfinished}
        return {OK: record.answered} | {code: count for code, count in others.items() if count}

    @property
    def errors(self) -> int:
        """Number of requests that failed or were not sent, without those an interrupt cancelled."""
        return self.record.failed + self.record.unsent + (0 if self.interrupted else self.record.unfinished)

    @property
    def figures(self) -> dict[str, float]:
        """A number for each of FIGURES; NaN if there is no data."""
        record = self.record
        latency = record.latency
        return {
            "p50": latency.quantile(0.5),
            "p90": latency.quantile(0.9),
            "p99": latency.quantile(0.99),
            "max": latency.max_value,
            "mean": latency.mean,
            "first_token_p50": record.first_token.quantile(0.5),
            "first_token_p99": record.first_token.quantile(0.99),
            "between_tokens_p50": record.between_tokens.quantile(0.5),
            "between_tokens_p99": record.between_tokens.quantile(0.99),
            "requests_per_second": self._per_second(record.answers),
            "good_per_second": self._per_second(record.good),
            "tokens_per_second": self._per_second(record.tokens) if record.first_token.count else math.nan,
            "good_share": record.good / record.calls if record.calls else math.nan,
            "errors": self.errors,
            "error_share": self.errors / record.calls if record.calls else math.nan,
            "lag_p99": record.lag.quantile(0.99),
        }

    @property
    def generator_was_the_bottleneck(self) -> bool:
        """True if the load generator's own lag is a large part of the latencies."""
        lag_s, latency_s = self.record.lag.quantile(0.99), self.record.latency.quantile(0.99)
        return lag_s > BOTTLENECK_LAG_S and lag_s > BOTTLENECK_SHARE * latency_s

    def as_json(self) -> dict[str, Any]:
        """Return all results as a dictionary for JSON; None replaces NaN and infinity."""
        plan, record = self.plan, self.record
        return {
            "loop": "closed" if plan.rate is None else "open",
            "rate": plan.rate,
            "arrivals": None if plan.rate is None else "constant" if plan.constant else "poisson",
            "concurrency": plan.concurrency if plan.rate is None else None,
            "warmup_s": plan.warm_up_s,
            "window_s": self.window_s,
            "goal_s": _finite(plan.goal_s),
            "seed": plan.seed,
            "interrupted": self.interrupted,
            "requests": record.calls,
            "codes": self.codes,
            "messages": record.messages,
            "good": record.good,
            "figures": {name: _finite(value) for name, value in self.figures.items()},
            "latency_s": record.latency.as_json(),
            "failure_latency_s": record.failing.as_json(),
            "first_token_s": record.first_token.as_json(),
            "between_tokens_s": record.between_tokens.as_json(),
            "stream_tokens_per_second": record.stream_rate.as_json(),
            "lag_s": record.lag.as_json(),
            "generator_was_the_bottleneck": self.generator_was_the_bottleneck,
        }

    def _per_second(self, count: int) -> float:
        return count / self.window_s if self.window_s else math.nan


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit on a figure.

    Attributes:
        figure: One of FIGURES.
        limit: The limit, in the unit of the figure.
        is_upper: Whether the figure must not be above the limit; otherwise not below it.
    """

    figure: str
    limit: float
    is_upper: bool

    def broken_by(self, result: Result) -> str | None:
        """Describe how the result breaks the bound, or return None; a missing figure breaks it."""
        found = result.figures[self.figure]
        if found <= self.limit if self.is_upper else found >= self.limit:
            return None
        relation = "<=" if self.is_upper else ">="
        shown = "none" if math.isnan(found) else f"{found:.4g}"
        return f"expected {self.figure} {relation} {self.limit:g}, found {shown}"


def parse_bounds(texts: Sequence[str], *, is_upper: bool) -> list[Bound]:
    """Parse bounds such as `p99=0.2`.

    Raises:
        ValueError: Unknown figure, or the limit is not a number.
    """
    bounds = []
    for text in texts:
        figure, _, limit = text.partition("=")
        if figure not in FIGURES:
            raise ValueError(f"expected FIGURE=NUMBER with a figure of {', '.join(FIGURES)}, found {text!r}")
        try:
            bounds.append(Bound(figure, float(limit), is_upper))
        except ValueError as error:
            raise ValueError(f"expected a number after {figure}=, found {limit!r}") from error
    return bounds


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
