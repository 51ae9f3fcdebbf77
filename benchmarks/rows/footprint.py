"""Memory with the three shipped models, and the time from a process' start to SERVING."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import client, loads
from benchmarks.models import SHIPPED
from benchmarks.rounds import Claim, Sample, number
from benchmarks.rows.forecasting import unary_requests
from benchmarks.rows.streams import requests_of
from benchmarks.servers import Server, serve
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import text_classification_pb2 as pb

STREAMS, CALLS_IN_FLIGHT = 64, 32
MOST_MIB, MOST_START_S = 200, 1.5


@contextmanager
def _memory(workshop: Workshop) -> Iterator[Contest]:
    characters, calls = workshop.size(256, 32), workshop.size(1000, 100)
    texts = loads.review_texts(calls)
    classify = [pb.ClassifyRequest(model="sentiment", texts=[text]).SerializeToString() for text in texts]
    forecast, generate = unary_requests(calls), requests_of(STREAMS, characters)

    async def load_all(server: Server) -> None:
        async with client.connection(server) as channel, asyncio.TaskGroup() as group:
            group.create_task(client.server_streams(channel, client.GENERATE, generate))
            group.create_task(client.closed_loop(channel, client.CLASSIFY, classify, CALLS_IN_FLIGHT))
            group.create_task(client.closed_loop(channel, client.FORECAST, forecast, CALLS_IN_FLIGHT))

    def run() -> Sample:
        with serve(SHIPPED, workshop.cores.server) as server:
            idle = server.resident_mib()
            workshop.run(load_all(server))
            return Sample(
                server.peak_resident_mib(), None, {"idle MiB": idle, "after load MiB": server.resident_mib()}
            )

    claims = [
        number(
            "peak resident memory, all three models under load", "ours", MOST_MIB, unit="MiB", is_at_most=True
        ),
        Claim("resident memory, idle", lambda samples: samples["ours"].notes["idle MiB"], unit="MiB"),
    ]
    load = (
        f"{STREAMS} generations of {characters} characters, {calls} texts "
        f"and {calls} forecasts with {CALLS_IN_FLIGHT} in flight each, at once"
    )
    yield Contest({"ours": run}, claims, load)


@contextmanager
def _start(workshop: Workshop) -> Iterator[Contest]:
    def run() -> Sample:
        with serve(SHIPPED, workshop.cores.server) as server:
            return Sample(server.started_s)

    claims = [
        number("process start to SERVING, three models", "ours", MOST_START_S, unit="s", is_at_most=True)
    ]
    yield Contest({"ours": run}, claims, "files in the page cache; one core")


ROWS = (
    Row("memory", "resident memory of the server", "MiB, peak", _memory, most_rounds=3),
    Row("start", "process start to SERVING", "s", _start),
)
