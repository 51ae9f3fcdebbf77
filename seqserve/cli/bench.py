"""`seqserve bench`: send requests at a rate or from so many callers, and tell how the server bore it."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from seqserve.bench.loops import Plan, run
from seqserve.bench.result import FIGURES, Result
from seqserve.bench.target import Target
from seqserve.bench.workload import Rpc, requests
from seqserve.cli.bench_options import DEFAULT_MODELS, bounds, distribution, plans, source
from seqserve.cli.bench_report import print_plot, print_result, print_sweep, progress, warn
from seqserve.cli.inputs import FileOption
from seqserve.cli.session import (
    FAILED,
    INTERRUPTED,
    JsonOption,
    ModelVersion,
    ServerOption,
    TimeoutOption,
    UsageError,
    print_json,
    session,
)
from seqserve.connection import DEFAULT_ADDRESS, DEFAULT_TIMEOUT_S

_LENGTHS = "N, constant:N, uniform:LEAST:MOST or lognormal:MEAN:SIGMA[:MOST]"


def bench(
    context: typer.Context,
    *,
    rpc: Annotated[Rpc, typer.Argument(help="What to call.", show_default=False)],
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="R[,R...]",
            help="Open loop: so many requests a second, whatever comes back. Several: a run and a row each.",
        ),
    ] = None,
    constant: Annotated[
        bool, typer.Option("--constant", help="Requests of --rate come at even distances, not at random.")
    ] = False,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Closed loop: so many callers, each waiting for its answer; 1 where nothing is given.",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Length of each run; 10 where --requests is not given.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--requests", min=1, metavar="N", help="End a run after so many.", show_default=False),
    ] = None,
    warmup: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Before each run, not counted.")
    ] = 1.0,
    goal: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="An answer within this is a good one; without: any answer is.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name of the model; that which ships for the rpc where not given.", show_default=False
        ),
    ] = None,
    version: ModelVersion = 0,
    file: FileOption = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTHS",
            help=f"Of what is sent, in characters, words or observations: {_LENGTHS}. lognormal:50:1 where neither this nor --file is given.",
            show_default=False,
        ),
    ] = None,
    per_request: Annotated[
        int, typer.Option(min=1, help="Texts or series in each request; generate has one.")
    ] = 1,
    max_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTHS",
            help="Tokens to generate, as --lengths; the model's own where not given.",
            show_default=False,
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Connections, taken by turns.")] = 1,
    max_in_flight: Annotated[
        int,
        typer.Option(
            min=1, help="Of --rate: requests beyond so many under way are not sent, and counted as errors."
        ),
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Of arrivals, lengths and texts.")] = 0,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER", help=f"Exit with 1 where it is above: {', '.join(FIGURES)}. Repeatable."
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE=NUMBER", help="Exit with 1 where it is below, or there is none. Repeatable."
        ),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the latencies, too.")] = False,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a server under load: latency from when a request was due, throughput, and errors.

    --file holds texts, one a line, sent whole unless --lengths cuts them; for forecast it is a CSV. Without
    it, the passage or the walk sent follows from --seed. --timeout is each request's deadline. An interrupt
    ends it with what was measured so far.
    """
    with session(context, server, timeout, as_json) as current:
        outer = context.obj
        deadline_s = DEFAULT_TIMEOUT_S if current.timeout_s is None else current.timeout_s
        todo = plans(
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
        held_to = bounds(fail_over, fail_under)
        text_lengths, token_counts = (
            distribution("--lengths", lengths),
            distribution("--max-tokens", max_tokens),
        )
        if rpc is not Rpc.GENERATE and token_counts is not None:
            raise UsageError("--max-tokens is for generate")
        if rpc is Rpc.GENERATE and per_request > 1:
            raise UsageError("--per-request: generate takes one prompt a request")
        found = current.client.model(model or DEFAULT_MODELS[rpc], version)
        inputs = source(rpc, found, file, text_lengths, seed)
        load = _Load(
            Target(server or outer.server or DEFAULT_ADDRESS, outer.credentials(), outer.token(), channels),
            rpc,
            lambda: requests(
                rpc,
                inputs,
                seed,
                model=found.name,
                version=version,
                per_request=per_request,
                max_tokens=token_counts,
            ),
            deadline_s,
        )
        about = {"rpc": rpc.value, "model": found.name, "version": found.version}
        results = asyncio.run(load.measure(todo, lambda result: _tell(result, about, current.as_json)))
        if not current.as_json:
            (print_result(results[0]) if len(todo) == 1 else print_sweep(results))
            if plot:
                print_plot(results)
        _exit(
            results,
            [message for result in results for bound in held_to if (message := bound.broken_by(result))],
        )


@dataclass(frozen=True, slots=True)
class _Load:
    """What the runs have in common.

    Attributes:
        target: the server.
        rpc: which is called.
        requests: the messages, from their beginning.
        deadline_s: of each call.
    """

    target: Target
    rpc: Rpc
    requests: Callable[[], Iterator[bytes]]
    deadline_s: float

    async def measure(self, todo: Sequence[Plan], tell: Callable[[Result], None]) -> list[Result]:
        """Runs one after the other; the first interrupt ends them, a second one is an interrupt as ever."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def interrupt() -> None:
            stop.set()
            loop.remove_signal_handler(signal.SIGINT)

        results: list[Result] = []
        async with self.target.connected() as channels:
            loop.add_signal_handler(signal.SIGINT, interrupt)
            for plan in todo:
                async with (
                    self.target.sender(self.rpc, channels, self.requests(), self.deadline_s) as send,
                    progress(plan) as began,
                ):
                    record = await run(plan, send, stop, began)
                result = Result(plan, record, stop.is_set())
                results.append(result)
                tell(result)
                if stop.is_set():
                    break
            loop.remove_signal_handler(signal.SIGINT)
        return results


def _tell(result: Result, about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(about | result.as_json())
    warn(result)


def _exit(results: Sequence[Result], broken: Sequence[str]) -> None:
    """End with the status that the results deserve.

    Raises:
        typer.Exit: not all is well.
    """
    if results[-1].interrupted:
        raise typer.Exit(INTERRUPTED)
    for message in broken:
        typer.echo(f"error: {message}", err=True)
    if not any(result.record.answered for result in results):
        typer.echo("error: no request was answered", err=True)
        raise typer.Exit(FAILED)
    if broken:
        raise typer.Exit(FAILED)
