"""What is told of a run: figures, JSON and bounds."""

import json

import pytest

from seqserve.bench.loops import Plan
from seqserve.bench.record import OK, Call, Record
from seqserve.bench.result import FIGURES, Result, parse_bounds
from seqserve.cli.bench_plot import draw_latencies


def recorded(calls: list[Call], goal_s: float = 0.25) -> Result:
    record = Record(0.0, 10.0, goal_s)
    for call in calls:
        record.plan(call.due)
        record.begin()
        record.end(call)
    return Result(Plan(rate=1.0, goal_s=goal_s), record)


@pytest.fixture
def result() -> Result:
    """Two streams, one of them late, and a failure."""
    return recorded(
        [
            Call(1.0, 1.0, 1.2, OK, arrivals=[(1.1, 1), (1.2, 2)]),
            Call(2.0, 2.1, 2.5, OK, arrivals=[(2.3, 4), (2.5, 1)]),
            Call(3.0, 3.0, 3.1, "UNAVAILABLE", "gone"),
        ]
    )


def test_figures_follow_from_the_calls(result: Result) -> None:
    figures = result.figures
    assert tuple(figures) == FIGURES
    assert figures["max"] == pytest.approx(0.5)
    assert figures["mean"] == pytest.approx(0.35)
    assert figures["first_token_p99"] == pytest.approx(0.3)
    assert figures["between_tokens_p99"] == pytest.approx(0.2)
    assert figures["between_tokens_p50"] == pytest.approx(0.05, rel=0.011)
    assert figures["requests_per_second"] == pytest.approx(0.2)
    assert figures["tokens_per_second"] == pytest.approx(0.8)
    assert figures["good_per_second"] == pytest.approx(0.1)
    assert figures["good_share"] == pytest.approx(1 / 3)
    assert figures["errors"] == 1
    assert figures["error_share"] == pytest.approx(1 / 3)


def test_latencies_are_drawn_without_escape_sequences_where_no_colors_may_be(result: Result) -> None:
    drawn = draw_latencies(result.record.latency, width=80, colors=False)
    assert "share of answers (%)" in drawn
    assert "\x1b" not in drawn
    assert "\x1b[38" in draw_latencies(result.record.latency, width=80, colors=True)


def test_counts_by_code_add_up_to_the_requests(result: Result) -> None:
    found = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert found["requests"] == sum(found["codes"].values()) == 3
    assert found["latency_s"]["count"] == found["codes"]["OK"]
    assert set(found["figures"]) == set(FIGURES)


def test_an_empty_result_is_json_too() -> None:
    found = json.loads(json.dumps(recorded([]).as_json(), allow_nan=False))
    assert (found["requests"], found["codes"], found["figures"]["p99"]) == (0, {"OK": 0}, None)


@pytest.mark.parametrize(
    ("text", "is_upper", "broken"),
    [
        ("max=0.6", True, False),
        ("max=0.4", True, True),
        ("errors=1", True, False),
        ("errors=0", True, True),
        ("requests_per_second=0.1", False, False),
        ("requests_per_second=1", False, True),
        ("lag_p99=1", True, True),
        ("lag_p99=1", False, True),
    ],
)
def test_a_bound_is_broken_by_what_passes_it_or_is_missing(
    result: Result, text: str, is_upper: bool, broken: bool
) -> None:
    (bound,) = parse_bounds([text], is_upper=is_upper)
    message = bound.broken_by(result)
    assert (message is not None) == broken
    assert message is None or message.startswith(f"expected {bound.figure} ")


@pytest.mark.parametrize("text", ["p98=1", "p99", "p99=", "p99=x", "=1"])
def test_a_bound_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_bounds([text], is_upper=True)


@pytest.mark.parametrize(
    ("lag_s", "latency_s", "warns"),
    [(0.001, 0.001, False), (0.003, 0.1, False), (0.003, 0.02, True), (0.05, 0.2, True)],
)
def test_the_load_generator_is_the_bottleneck_when_late_beyond_measure(
    lag_s: float, latency_s: float, warns: bool
) -> None:
    result = recorded([Call(1.0, 1.0, 1.0 + latency_s, OK)])
    result.record.lag.add(lag_s)
    assert result.generator_was_the_bottleneck == warns
