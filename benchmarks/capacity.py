"""What a replica carries: throughput and latency against offered load, characters a second against streams,
memory against slots.

python -m benchmarks.capacity            # a few minutes; writes the measured part of docs/capacity.md, and
docs/capacity.svg python -m benchmarks.capacity --quick    # to see that it works, not how much it carries:
writes runs/capacity/
"""

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Final

from service.contract.extras import require

require("python -m benchmarks.capacity", "train")

import numpy as np
import typer
import uvloop
from grpc import aio
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import client, loads
from benchmarks.machine import Cores, choose_cores, describe, pinned, taken
from benchmarks.models import SHIPPED
from benchmarks.report import replace_between
from benchmarks.rounds import CLIENT_SHARE
from benchmarks.rows.forecasting import unary_requests
from benchmarks.rows.streams import reader_times, requests_of
from benchmarks.servers import Server, serve
from seqserve.v1 import text_classification_pb2, text_generation_pb2

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/capacity.md"
QUICK_OUT: Final = ROOT / "runs/capacity"
BEGIN, END = "<!-- measured: make capacity writes from here -->", "<!-- measured: to here -->"
SHARES: Final = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
STREAMS: Final = (1, 4, 16, 64, 128, 256)
SLOTS: Final = (16, 64, 256, 1024)
IN_FLIGHT: Final = 64
LOAD_BEFORE: Final = "load average before"
MOST_LOAD_BEFORE: Final = 0.5
SPEECH: Final = (
    "Thou art done, and he would have the thousand selves And so that I charge the good to the precious; "
)


@dataclass(frozen=True, slots=True)
class Load:
    """Unary calls of one kind.

    Attributes:
        name: as tables have it.
        method: of gRPC.
        requests: one after the other, from the first again when they are over.
    """

    name: str
    method: str
    requests: Sequence[bytes]

    def of(self, count: int) -> list[bytes]:
        """So many requests."""
        return [self.requests[index % len(self.requests)] for index in range(count)]


@dataclass(frozen=True, slots=True)
class Point:
    """One offered load.

    Attributes:
        share: offered, of the capacity.
        answered: a second, of the capacity.
        p50_ms, p99_ms: latency from the intended arrival.
        failed: calls without an answer, of all.
    """

    share: float
    answered: float
    p50_ms: float
    p99_ms: float
    failed: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A load at several shares of what the server can do.

    Attributes:
        name: of the load.
        capacity: calls a second in a closed loop, the median of those before each share.
        client_share: of its core that the load generator used then, percent; with more than 95 it was the
            limit.
        points: by share.
    """

    name: str
    capacity: float
    client_share: float
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class StreamPoint:
    """So many streams at once: all their characters a second, milliseconds to the first one (p99), memory of
    the server afterwards.
    """

    streams: int
    characters: float
    first_p99_ms: float
    resident_mib: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was measured.

    Attributes:
        machine: where.
        curves, streams: as above.
        slots: resident MiB of an idle server by its setting of slots.
    """

    machine: dict[str, str]
    curves: Sequence[Curve]
    streams: Sequence[StreamPoint]
    slots: dict[int, float]


def unary_loads() -> list[Load]:
    """One for each task, of the models that ship."""
    classify = [
        text_classification_pb2.ClassifyRequest(model="sentiment", texts=[text]).SerializeToString()
        for text in loads.review_texts(1000)
    ]
    texts = [SPEECH[: 20 + 4 * (index % 20)] for index in range(100)]
    score = [
        text_generation_pb2.ScoreRequest(model="charlm", texts=[text]).SerializeToString() for text in texts
    ]
    return [
        Load("Classify, sentiment, one review sentence", client.CLASSIFY, classify),
        Load("Forecast, stock, seven days", client.FORECAST, unary_requests(1000)),
        Load("Score, charlm, 20 to 96 characters", "/seqserve.v1.TextGeneration/Score", score),
    ]


async def measure_curve(server: Server, load: Load, seconds: float) -> Curve:
    """An open loop at each share of the capacity, which is measured anew right before: a machine that others
    use is slower at some times.
    """
    async with client.connection(server) as channel:
        closed = partial(_closed_loop, server, channel, load)
        rate, _ = await closed(4 * IN_FLIGHT)
        found: list[tuple[float, float]] = []
        points: list[Point] = []
        for share in SHARES:
            found.append(await closed(max(4 * IN_FLIGHT, int(rate * seconds / 3))))
            rate = found[-1][0]
            arrivals = loads.poisson_arrivals(share * rate, seconds)
            seen = await client.open_loop(channel, load.method, load.of(len(arrivals)), arrivals)
            points.append(_point(share, rate, arrivals, seen.latencies))
    capacity, client_share = (median(values) for values in zip(*found, strict=True))
    return Curve(load.name, capacity, client_share, points)


async def _closed_loop(server: Server, channel: aio.Channel, load: Load, count: int) -> tuple[float, float]:
    """Calls a second, and the share of its core that the load generator used, percent."""
    usage = client.Usage(server)
    await client.closed_loop(channel, load.method, load.of(count), IN_FLIGHT)
    usage.stop()
    return count / usage.wall_s, usage.notes()[CLIENT_SHARE]


def _point(
    share: float, capacity: float, arrivals: NDArray[np.float64], latencies: NDArray[np.float64]
) -> Point:
    came = np.isfinite(latencies)
    took = float(np.max((arrivals + latencies)[came])) if came.any() else math.inf
    p50, p99 = (float(1000 * np.percentile(latencies[came], q)) if came.any() else math.inf for q in (50, 99))
    return Point(share, float(came.sum()) / took / capacity, p50, p99, float(1 - came.mean()))


async def measure_streams(server: Server, characters: int) -> list[StreamPoint]:
    """Generations that begin at once, by their number."""
    points = []
    async with client.connection(server) as channel:
        await client.server_streams(channel, client.GENERATE, requests_of(8, characters))
        for streams in STREAMS:
            usage = client.Usage(server)
            seen = await client.server_streams(channel, client.GENERATE, requests_of(streams, characters))
            usage.stop()
            points.append(
                StreamPoint(
                    streams,
                    streams * characters / usage.wall_s,
                    reader_times(seen)["first token p99 ms"],
                    server.resident_mib(),
                )
            )
    return points


def measure(cores: Cores, seconds: float, characters: int) -> Measured:
    """Everything, the server on its core and the load generator on another."""
    before = f"{os.getloadavg()[0]:.2f}"
    with taken(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        with serve(SHIPPED, cores.server) as server, pinned({cores.client}):
            curves = [runner.run(measure_curve(server, load, seconds)) for load in unary_loads()]
        with serve(SHIPPED, cores.server) as server, pinned({cores.client}):
            streams = runner.run(measure_streams(server, characters))
        slots = {}
        for count in SLOTS:
            with serve(SHIPPED, cores.server, slots=str(count)) as server:
                slots[count] = server.resident_mib()
    return Measured({**describe(cores), LOAD_BEFORE: before}, curves, streams, slots)


def tables(measured: Measured) -> str:
    """The measured part of the page."""
    machine = measured.machine
    lines = [
        (
            f"Measured on {machine['date'][:10]}, {machine['CPU']}, "
            f"the server on one core and the load generator on another. {_disturbance(machine)}"
        ),
        "",
        "| load | calls/s, closed loop of 64 (load generator's core) | "
        + " | ".join(f"{share:.0%}" for share in SHARES)
        + " |",
        "| --- | --- |" + " --- |" * len(SHARES),
    ]
    for curve in measured.curves:
        lines.append(
            f"| {curve.name}: p50 / p99, ms | {curve.capacity:,.0f} ({curve.client_share:.0f} %) | "
            + " | ".join(map(_latency, curve.points))
            + " |"
        )
        lines.append(
            "| answered, of capacity | | "
            + " | ".join(f"{point.answered:.2f}" for point in curve.points)
            + " |"
        )
    lines += [
        "",
        (
            "| streams of charlm at once | characters/s | each | "
            "of the most | first character p99, ms | memory, MiB |"
        ),
        "| --- |" + " --- |" * 5,
    ]
    most = max(one.characters for one in measured.streams)
    lines += [
        (
            f"| {one.streams} | {one.characters:,.0f} | {one.characters / one.streams:,.0f} | "
            f"{one.characters / most:.0%} | {one.first_p99_ms:,.0f} | {one.resident_mib:.0f} |"
        )
        for one in measured.streams
    ]
    lines += [
        "",
        "| `SEQSERVE_SLOTS` (each of the three models) | " + " | ".join(map(str, measured.slots)) + " |",
    ]
    lines += [
        "| --- |" + " --- |" * len(measured.slots),
        "| memory when idle, MiB | " + " | ".join(f"{mib:.0f}" for mib in measured.slots.values()) + " |",
    ]
    lines += ["", "![p99 latency against load, and characters a second against streams](capacity.svg)"]
    return "\n".join(lines)


def _disturbance(machine: dict[str, str]) -> str:
    busy = float(machine[LOAD_BEFORE])
    verdict = (
        "**Others used the machine: not to be relied on, measure again.**"
        if busy > MOST_LOAD_BEFORE
        else "Nothing else ran."
    )
    return f"Load average before: {busy:.1f}. {verdict}"


def _latency(point: Point) -> str:
    lost = f", {point.failed:.0%} failed" if point.failed else ""
    return f"{point.p50_ms:,.1f} / {point.p99_ms:,.1f}{lost}"


def replace_measured(page: str, text: str) -> str:
    """A page with its measured part replaced.

    Raises:
        ValueError: the page has no such part, or several.
    """
    return replace_between(page, BEGIN, END, text)


def draw(measured: Measured, path: Path) -> None:
    """Latency against load, and characters a second against streams."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for curve in measured.curves:
        idle = curve.points[0].p50_ms
        left.plot(
            [100 * point.share for point in curve.points],
            [point.p99_ms / idle for point in curve.points],
            marker="o",
            label=curve.name,
        )
    left.set_yscale("log")
    left.set(
        xlabel="offered load, % of capacity", ylabel="p99 / median at 30 %", title="Latency against load"
    )
    left.legend(fontsize=7)
    right.plot(
        [one.streams for one in measured.streams], [one.characters for one in measured.streams], marker="o"
    )
    right.set_xscale("log", base=2)
    right.set_xticks(
        [one.streams for one in measured.streams], [str(one.streams) for one in measured.streams]
    )
    right.set_ylim(bottom=0)
    right.set(xlabel="streams at once", ylabel="characters/s, all together", title="charlm, 2 x 512")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, metadata={"Date": None})


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="small loads; writes runs/capacity/ and leaves docs/ alone")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="of each offered load")] = 10,
) -> None:
    """Measure what a replica carries, and write it into docs/capacity.md."""
    measured = measure(choose_cores(), 1 if quick else seconds, 32 if quick else 256)
    text = tables(measured)
    if quick:
        QUICK_OUT.mkdir(parents=True, exist_ok=True)
        (QUICK_OUT / "capacity.md").write_text(text + "\n")
    else:
        PAGE.write_text(replace_measured(PAGE.read_text(), text))
    draw(measured, (QUICK_OUT if quick else PAGE.parent) / "capacity.svg")
    typer.echo(text)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app()
