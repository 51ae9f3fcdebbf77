"""The output of `seqserve bench`: progress on a terminal, tables, warnings and plots."""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from seqserve.bench.histogram import Histogram
from seqserve.bench.loops import Plan
from seqserve.bench.record import Record
from seqserve.bench.result import Result
from seqserve.cli import tables
from seqserve.cli.output import escape_controls
from seqserve.cli.tables import Column, print_table

_REFRESH_S = 0.5  # drawing blocks the event loop that measures


@asynccontextmanager
async def progress(plan: Plan) -> AsyncIterator[Callable[[Record], None]]:
    """Show the progress of a run in one line on standard error, if that is a terminal.

    Yields:
        A function to call with the record when the run starts.
    """
    if not sys.stderr.isatty():
        yield lambda _record: None
        return
    drawing: list[asyncio.Task[None]] = []
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        try:
            yield lambda record: drawing.append(asyncio.create_task(_draw(live, plan, record)))
        finally:
            for task in drawing:
                task.cancel()
            await asyncio.gather(*drawing, return_exceptions=True)


async def _draw(live: Live, plan: Plan, record: Record) -> None:
    now = asyncio.get_running_loop().time
    while True:
        live.update(Text(_line(plan, record, now() - record.opens), style="dim"), refresh=True)
        await asyncio.sleep(_REFRESH_S)


def _line(plan: Plan, record: Record, at_s: float) -> str:
    if at_s < 0:
        state = f"warming up, {-at_s:.0f} s left"
    elif plan.duration_s is not None and at_s > plan.duration_s:
        state = "waiting for the last answers"
    else:
        state = f"{at_s:.0f} s" + (f" of {plan.duration_s:g} s" if plan.duration_s is not None else "")
    of_all = f" of {plan.requests}" if plan.requests is not None else ""
    median = f", median {_ms(record.latency.quantile(0.5))} ms" if record.answered else ""
    counts = f"{record.calls}{of_all} requests, {record.failed} failed, {record.in_flight} under way"
    return f"{describe_load(plan)}: {state}, {counts}{median}"


def describe_load(plan: Plan) -> str:
    """Describe the load of a plan."""
    return f"concurrency {plan.concurrency}" if plan.rate is None else f"{plan.rate:g} requests/s"


def print_result(result: Result) -> None:
    """Print two tables of one run: latencies, then counts and rates."""
    record, figures = result.record, result.figures
    times = [
        ("latency", record.latency),
        ("first token", record.first_token),
        ("between tokens", record.between_tokens),
        ("failures", record.failing),
    ]
    print_table(
        [Column("milliseconds"), *(Column(title, is_number=True) for title in ("p50", "p90", "p99", "max"))],
        [[name, *_quantiles(histogram)] for name, histogram in times if histogram.count],
    )
    rates = [("requests/s", "requests_per_second"), ("tokens/s", "tokens_per_second")]
    rows = [("requests", str(record.calls)), *((code, str(count)) for code, count in result.codes.items())]
    rows += [(title, f"{figures[name]:.1f}") for title, name in rates if not math.isnan(figures[name])]
    if not math.isinf(result.plan.goal_s) and record.calls:
        rows += [
            (f"within {result.plan.goal_s:g} s", f"{figures['good_share']:.1%}"),
            ("within it, requests/s", f"{figures['good_per_second']:.1f}"),
        ]
    print_table([Column("count or rate"), Column("value", is_number=True)], rows)


def print_sweep(results: Sequence[Result]) -> None:
    """Print a table with one row per run."""
    has_tokens = any(result.record.first_token.count for result in results)
    has_goal = not math.isinf(results[0].plan.goal_s)
    titles = [
        "concurrency" if results[0].plan.rate is None else "rate",
        "requests",
        "errors",
        "requests/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
    ]
    titles += ["good %"] * has_goal + ["tokens/s", "first token p99 ms", "between tokens p99 ms"] * has_tokens
    print_table(
        [Column(title, is_number=True) for title in titles],
        [_sweep_row(result, has_goal, has_tokens) for result in results],
    )


def _sweep_row(result: Result, has_goal: bool, has_tokens: bool) -> list[str]:
    figures = result.figures
    row = [
        f"{result.plan.concurrency if result.plan.rate is None else result.plan.rate:g}",
        str(result.record.calls),
        str(result.errors),
        _number(figures["requests_per_second"]),
        *_quantiles(result.record.latency),
    ]
    if has_goal:
        row.append(_number(100 * figures["good_share"]))
    if has_tokens:
        row += [
            _number(figures["tokens_per_second"]),
            _ms(figures["first_token_p99"]),
            _ms(figures["between_tokens_p99"]),
        ]
    return row


def print_warnings(result: Result) -> None:
    """Print to standard error the first message of each failure, and what makes the figures unreliable."""
    record = result.record
    about = describe_load(result.plan)
    for code, message in record.messages.items():
        typer.echo(f"{about}: {record.failures[code]} x {code}: {escape_controls(message)}", err=True)
    if record.unsent:
        typer.echo(
            f"warning: {about}: {record.unsent} not sent, "
            f"since {result.plan.max_in_flight} were under way (--max-in-flight)",
            err=True,
        )
    if result.generator_was_the_bottleneck:
        typer.echo(
            f"warning: {about}: the load generator was itself late, "
            f"by {_ms(record.lag.quantile(0.99))} ms at p99: part of the latencies is its own; "
            "lower the load, or give it a processor of its own",
            err=True,
        )
    if result.interrupted:
        typer.echo(f"interrupted: {about}: {record.unfinished} under way, and in no latency", err=True)


def print_plot(results: Sequence[Result]) -> None:
    """Plot the latency distribution of one run, or the latencies of several by their load."""
    # Importing plotext takes a quarter of a second.
    from seqserve.cli.bench_plot import draw_latencies, draw_sweep  # noqa: PLC0415

    answered = [result for result in results if result.record.answered]
    if not answered:
        return
    colors = sys.stdout.isatty()
    if len(results) == 1:
        latency = answered[0].record.latency
        tables.print_plot(lambda width: draw_latencies(latency, width=width, colors=colors))
    else:
        tables.print_plot(lambda width: draw_sweep(answered, width=width, colors=colors))


def _quantiles(histogram: Histogram) -> list[str]:
    return [*(_ms(histogram.quantile(level)) for level in (0.5, 0.9, 0.99)), _ms(histogram.max_value)]


def _ms(seconds: float) -> str:
    return _number(1000 * seconds)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
