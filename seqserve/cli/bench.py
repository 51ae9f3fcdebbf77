"""`seqserve bench`: measures a server under load, in an open or a closed loop."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import typer

from seqserve.bench.distribution import Distribution
from seqserve.bench.loops import Plan, run
from seqserve.bench.result import FIGURES, Bound, Result
from seqserve.bench.target import Target
from seqserve.bench.workload import TASKS, Rpc, requests
from seqserve.cli import INTERRUPTED
from seqserve.cli.bench_options import make_bounds, make_plans, make_source, read_distribution
from seqserve.cli.bench_report import print_plot, print_result, print_sweep, print_warnings, progress
from seqserve.cli.choosing import ModelOption, choose_model
from seqserve.cli.inputs import FileOption
from seqserve.cli.session import (
    FAILED,
    GlobalOptions,
    JsonOption,
    ModelVersion,
    ServerOption,
    TimeoutOption,
    UsageError,
    print_json,
    session,
)
from seqserve.connection import DEFAULT_TIMEOUT_S

_LENGTHS = "N, constant:N, uniform:MIN:MAX or lognormal:MEAN:SIGMA[:MAX]"


def bench(  # noqa: PLR0913 - one parameter per option
    context: typer.Context,
    *,
    rpc: Annotated[Rpc, typer.Argument(help="The rpc to call.", show_default=False)],
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R[,R...]",
            help="Open loop: requests per second, sent without waiting for answers. One run each.",
        ),
    ] = None,
    constant: Annotated[
        bool, typer.Option("--constant", help="Space the requests of --rate evenly, not at random.")
    ] = False,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Closed loop: callers, each waiting for its answer. One run each. Default: 1.",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Length of each run. Default: 10, without --requests.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--requests", min=1, metavar="N", help="End a run after this many requests.", show_default=False
        ),
    ] = None,
    warmup: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Load before each run, not counted.")
    ] = 1.0,
    goal: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Maximum latency of a good answer. Default: any answer is good.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    version: ModelVersion = 0,
    file: FileOption = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTHS",
            help="Lengths of the inputs, in characters, words or observations: "
            f"{_LENGTHS}. Default: lognormal:50:1, without --file.",
            show_default=False,
        ),
    ] = None,
    per_request: Annotated[
        int, typer.Option(min=1, help="Texts or series per request; generate takes one.")
    ] = 1,
    max_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTHS",
            help="Tokens to generate, in the form of --lengths. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Connections, used round-robin.")] = 1,
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=1,
            help="With --rate: a request beyond this many in flight is not sent, and counts as an error.",
        ),
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals, lengths and texts.")] = 0,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER",
            help=f"Exit with 1 if the figure is above: {', '.join(FIGURES)}. Repeatable.",
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER", help="Exit with 1 if the figure is below or missing. Repeatable."
        ),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Also plot the latencies.")] = False,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a server under load: latency from the scheduled send time, throughput, and errors.

    --file has one text per line, sent whole unless --lengths is given; for forecast it is a CSV file. Without
    --file, the inputs are determined by --seed. --timeout is the deadline of each request. An interrupt ends
    the command, which prints what was measured so far.
    """
    with session(context, server, timeout, as_json) as current:
        deadline_s = DEFAULT_TIMEOUT_S if current.timeout_s is None else current.timeout_s
        plans = make_plans(
            rate=rate,
            constant=constant,
            concurrency=concurrency,
            max_in_flight=max_in_flight,
            warm_up_s=warmup,
            duration_s=duration,
            requests=count,
            deadline_s=deadline_s,
            goal_s=goal,
            seed=seed,
        )
        bounds = make_bounds(fail_over, fail_under)
        text_lengths = read_distribution("--lengths", lengths)
        token_counts = read_distribution("--max-tokens", max_tokens)
        _check_options(rpc, token_counts, per_request)
        found = current.client.model(choose_model(current.client, TASKS[rpc], model), version)
        target = _make_target(context.obj, server, channels)
        source = make_source(rpc, found, file, text_lengths, seed)
        make_requests = partial(
            requests,
            rpc,
            source,
            seed,
            model=found.name,
            version=version,
            per_request=per_request,
            max_tokens=token_counts,
        )
        benchmark = _Benchmark(target, rpc, make_requests, deadline_s)
        about = {"rpc": rpc.value, "model": found.name, "version": found.version}
        results = asyncio.run(
            benchmark.measure(plans, lambda result: _report(result, about, current.as_json))
        )
        if not current.as_json:
            _print_results(results, is_sweep=len(plans) > 1, plot=plot)
        _exit(results, bounds)


def _make_target(options: GlobalOptions, server: str | None, channels: int) -> Target:
    return Target(options.address(server), options.credentials(), options.token(), channels)


def _check_options(rpc: Rpc, token_counts: Distribution | None, per_request: int) -> None:
    if rpc is not Rpc.GENERATE and token_counts is not None:
        raise UsageError("--max-tokens is for generate")
    if rpc is Rpc.GENERATE and per_request > 1:
        raise UsageError("--per-request: generate takes one prompt a request")


@dataclass(frozen=True, slots=True)
class _Benchmark:
    """The parts that all runs share.

    Attributes:
        target: The server.
        rpc: The rpc to call.
        make_requests: Starts the endless sequence of serialised requests.
        deadline_s: Deadline of each call in seconds.
    """

    target: Target
    rpc: Rpc
    make_requests: Callable[[], Iterator[bytes]]
    deadline_s: float

    async def measure(self, plans: Sequence[Plan], on_result: Callable[[Result], None]) -> list[Result]:
        """Execute the plans one after the other.

        The first interrupt ends the current run and skips the others; a second one raises KeyboardInterrupt.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def interrupt() -> None:
            stop.set()
            loop.remove_signal_handler(signal.SIGINT)

        results: list[Result] = []
        async with self.target.connect() as channels:
            loop.add_signal_handler(signal.SIGINT, interrupt)
            for plan in plans:
                async with (
                    self.target.sender(self.rpc, channels, self.make_requests(), self.deadline_s) as send,
                    progress(plan) as began,
                ):
                    record = await run(plan, send, stop, began)
                result = Result(plan, record, stop.is_set())
                results.append(result)
                on_result(result)
                if stop.is_set():
                    break
            loop.remove_signal_handler(signal.SIGINT)
        return results


def _report(result: Result, about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(about | result.as_json())
    print_warnings(result)


def _print_results(results: Sequence[Result], *, is_sweep: bool, plot: bool) -> None:
    if is_sweep:
        print_sweep(results)
    else:
        print_result(results[0])
    if plot:
        print_plot(results)


def _exit(results: Sequence[Result], bounds: Sequence[Bound]) -> None:
    """Exit with the status of the results.

    Raises:
        typer.Exit: The runs were interrupted, nothing was answered, or a bound is broken.
    """
    if results[-1].interrupted:
        raise typer.Exit(INTERRUPTED)
    broken = [message for result in results for bound in bounds if (message := bound.broken_by(result))]
    for message in broken:
        typer.echo(f"error: {message}", err=True)
    if not any(result.record.answered for result in results):
        typer.echo("error: no request was answered", err=True)
        raise typer.Exit(FAILED)
    if broken:
        raise typer.Exit(FAILED)
