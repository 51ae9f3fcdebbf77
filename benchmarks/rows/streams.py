"""What a reader of generated text sees: time to the first token and between tokens, by the number of
streams.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from benchmarks import client
from benchmarks.models import SHIPPED
from benchmarks.rounds import Sample
from benchmarks.servers import Server, serve
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import text_generation_pb2 as pb

MODEL = "charlm"
STREAMS = (1, 8, 64, 256)
PROMPTS = ("ROMEO:", "To be, or not", "The king ", "What say you")


def requests_of(streams: int, characters: int) -> list[bytes]:
    """Generations with a prompt of a few characters each."""
    return [
        pb.GenerateRequest(
            model=MODEL, prompt=PROMPTS[seed % len(PROMPTS)], max_tokens=characters, seed=seed
        ).SerializeToString()
        for seed in range(streams)
    ]


def reader_times(streams: list[list[client.Arrival]]) -> dict[str, float]:
    """First-token times and gaps, milliseconds; a gap between two messages is shared by the tokens of the
    later one.
    """
    first = 1000 * np.array([stream[0].at for stream in streams])
    gaps, messages = [], []
    for stream in streams:
        for before, after in pairwise(stream):
            count = pb.GenerateResponse.FromString(after.data).token_count
            if count:
                messages.append(after.at - before.at)
                gaps.extend([messages[-1] / count] * count)
    return {
        "first token p50 ms": float(np.percentile(first, 50)),
        "first token p99 ms": float(np.percentile(first, 99)),
        "between tokens p50 ms": float(1000 * np.percentile(gaps, 50)),
        "between tokens p99 ms": float(1000 * np.percentile(gaps, 99)),
        "between messages p99 ms": float(1000 * np.percentile(messages, 99)),
    }


def with_streams(workshop: Workshop, server: Server, streams: int, characters: int) -> Callable[[], Sample]:
    """Characters a second of so many streams that begin at once; what a reader sees is noted."""
    requests = requests_of(streams, characters)

    async def work() -> tuple[list[list[client.Arrival]], client.Usage]:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            seen = await client.server_streams(channel, client.GENERATE, requests)
            usage.stop()
        return seen, usage

    def run() -> Sample:
        seen, usage = workshop.run(work())
        made = usage.sample(streams * characters)
        return Sample(made.value, made.by_cpu, {**reader_times(seen), **made.notes})

    return run


@contextmanager
def _by_streams(workshop: Workshop) -> Iterator[Contest]:
    characters = workshop.size(128, 32)
    with serve(SHIPPED, workshop.cores.server) as server:
        contestants = {
            str(streams): with_streams(workshop, server, streams, characters) for streams in STREAMS
        }
        contestants["8"]()  # warms the server up
        load = (
            f"charlm as shipped, {characters} characters each, "
            "all streams begin at once, by number of streams; default slots"
        )
        yield Contest(contestants, load=load)


ROWS = (
    Row(
        "streams",
        "time to first token and between tokens, through gRPC",
        "characters/s",
        _by_streams,
        most_rounds=3,
    ),
)
