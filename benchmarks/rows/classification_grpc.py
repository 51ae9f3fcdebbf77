"""S2 and S3: classification through gRPC: throughput when saturated, and how long a short text waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from benchmarks import client, loads
from benchmarks.inprocess import classifier, classify, engine_of, runtime_of
from benchmarks.models import Model
from benchmarks.rounds import Claim, Round, Sample, inverse_ratio, ratio, timed
from benchmarks.servers import Server, serve, serve_fifo
from benchmarks.untrained import LABELS, MIXED
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import text_classification_pb2 as pb

STREAMS = 4
TEXTS_IN_FLIGHT = 64  # of a stream
TEXTS_A_MESSAGE = (1, 16)
CLOSED_LOOP = 128
MOST_FAILURES = 0.005
LOAD_SHARE = 0.7


def requests_of(model: Model, texts: list[str], texts_a_message: int) -> list[bytes]:
    """Messages, serialised; the id is the number of the first text."""
    parts = client.batches(texts, texts_a_message)
    return [
        pb.ClassifyRequest(model=model.name, texts=part, id=str(index * texts_a_message)).SerializeToString()
        for index, part in enumerate(parts)
    ]


def check_labels(answers: list[bytes], expected: NDArray[np.int64], labels: list[str]) -> int:
    """Every text was answered with the label that the engine gives it in process; how many there were."""
    seen = 0
    for data in answers:
        answer = pb.ClassifyResponse.FromString(data)
        assert not answer.error.code, f"an answer is an error: {answer.error.message}"
        first = int(answer.id)
        for offset, result in enumerate(answer.results):
            label = labels[expected[first + offset]]
            assert result.label == label, f"text {first + offset}: expected {label}, found {result.label}"
        seen += len(answer.results)
    assert seen == len(expected), f"expected {len(expected)} answers, found {seen}"
    return seen


def saturate(
    workshop: Workshop,
    server: Server,
    messages: list[bytes],
    window: int,
    check: Callable[[list[bytes]], int],
) -> Sample:
    """Return the texts a second through some ClassifyStreams, each with so many messages unanswered."""

    async def work() -> tuple[list[bytes], client.Usage]:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.stream_windowed(channel, client.CLASSIFY_STREAM, messages, STREAMS, window)
            usage.stop()
        return answers, usage

    before = _steps(server)
    answers, usage = workshop.run(work())
    made = usage.sample(check(answers))
    useful, padded = (after - earlier for after, earlier in zip(_steps(server), before, strict=True))
    return Sample(
        made.value,
        made.by_cpu,
        {**made.notes, **({"padded steps %": 100 * padded / (useful + padded)} if useful else {})},
    )


def _steps(server: Server) -> tuple[float, float]:
    """Useful and padded steps so far; of a server without metrics none."""
    if not server.http_port:
        return 0.0, 0.0
    useful, padded = (server.metric("seqserve_steps_total", kind=kind) for kind in ("useful", "padded"))
    return useful, padded


@contextmanager
def _throughput(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(2000, 300)), loads.WORDS)
    texts = loads.texts_of(inputs, loads.vocabulary())
    driven = engine_of(model, runtime_of(model))
    expected = np.array([output.argmax() for output in classify(driven, inputs)])
    engine = classifier(driven, inputs)
    with (
        serve(model.repository, workshop.cores.server) as ours,
        serve_fifo(model, workshop.cores.server) as fifo,
    ):

        def through(server: Server, texts_a_message: int) -> Callable[[], Sample]:
            messages = requests_of(model, texts, texts_a_message)
            return lambda: saturate(
                workshop,
                server,
                messages,
                TEXTS_IN_FLIGHT // texts_a_message,
                lambda answers: check_labels(answers, expected, LABELS),
            )

        contestants = {
            "engine in process": workshop.alone(lambda: timed(engine)),
            "gRPC, 1 text a message": through(ours, 1),
            "gRPC, 16 texts a message": through(ours, 16),
            "FIFO server, gRPC, 1 text a message": through(fifo, 1),
        }
        for warm_up in (through(ours, 1), through(fifo, 1)):
            warm_up()
        claims = [
            ratio(
                "through gRPC, 1 text a message / engine in process",
                "gRPC, 1 text a message",
                "engine in process",
                0.75,
            ),
            ratio(
                "through gRPC, 16 texts a message / engine in process",
                "gRPC, 16 texts a message",
                "engine in process",
                0.90,
            ),
            ratio(
                "ours / FIFO server, both gRPC, 1 text a message",
                "gRPC, 1 text a message",
                "FIFO server, gRPC, 1 text a message",
            ),
        ]
        load = (
            f"{len(texts):,} texts, {STREAMS} ClassifyStreams on one connection, "
            f"each with {TEXTS_IN_FLIGHT} texts in flight"
        )
        yield Contest(contestants, claims, load)


@contextmanager
def _latency(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    seconds = workshop.size(8, 2)
    with (
        serve(model.repository, workshop.cores.server) as ours,
        serve_fifo(model, workshop.cores.server) as fifo,
    ):
        capacity = _capacity(workshop, fifo, model, workshop.size(1500, 300))
        _capacity(workshop, ours, model, 100)  # warms it up
        arrivals = loads.poisson_arrivals(LOAD_SHARE * capacity, seconds)
        lengths = loads.mixed_lengths(len(arrivals), loads.SEED + 1)
        requests = requests_of(
            model, loads.texts_of(loads.token_arrays(lengths, loads.WORDS), loads.vocabulary()), 1
        )

        def through(server: Server) -> Callable[[], Sample]:
            return lambda: _open_loop(workshop, server, requests, arrivals, lengths <= loads.SHORT)

        facts = {
            "FIFO server's capacity, closed loop, texts/s": capacity,
            "offered, texts/s": LOAD_SHARE * capacity,
        }
        load = (
            f"Poisson arrivals at {100 * LOAD_SHARE:.0f} % of the FIFO server's capacity for {seconds} s, "
            f"unary Classify, one text each; p99 over the {np.mean(lengths <= loads.SHORT):.0%} "
            f"of texts with at most {loads.SHORT} tokens, from the intended arrival"
        )
        claims = [
            inverse_ratio(
                f"p99 of texts of <= {loads.SHORT} tokens: FIFO server / ours", "ours", "FIFO server", 3.0
            ),
            _median_claim(),
        ]
        yield Contest({"ours": through(ours), "FIFO server": through(fifo)}, claims, load, facts)


def _median_claim() -> Claim:
    def of(samples: Round) -> float:
        return samples["FIFO server"].notes["p50 ms"] / samples["ours"].notes["p50 ms"]

    return Claim("p50 of the same: FIFO server / ours", of)


def _capacity(workshop: Workshop, server: Server, model: Model, count: int) -> float:
    """Texts a second that a server answers in a closed loop: the better of two, since whatever disturbs only
    takes away.
    """
    inputs = loads.token_arrays(loads.mixed_lengths(count), loads.WORDS)
    requests = requests_of(model, loads.texts_of(inputs, loads.vocabulary()), 1)

    async def work() -> float:
        async with client.connection(server) as channel:
            started = time.perf_counter()
            await client.closed_loop(channel, client.CLASSIFY, requests, CLOSED_LOOP)
            return count / (time.perf_counter() - started)

    return max(workshop.run(work()) for _ in range(2))


def _open_loop(
    workshop: Workshop,
    server: Server,
    requests: list[bytes],
    arrivals: NDArray[np.float64],
    is_short: NDArray[np.bool_],
) -> Sample:
    async def work() -> tuple[client.OpenLoop, client.Usage]:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            seen = await client.open_loop(channel, client.CLASSIFY, requests, arrivals)
            usage.stop()
        return seen, usage

    seen, usage = workshop.run(work())
    assert len(seen.failures) < MOST_FAILURES * len(requests), (
        f"{len(seen.failures)} calls failed: {seen.failures[:3]}"
    )
    short = 1000 * seen.latencies[is_short]
    every = 1000 * seen.latencies
    notes = {
        "p50 ms": float(np.percentile(short, 50)),
        "all texts: p50 ms": float(np.percentile(every, 50)),
        "p99 ms": float(np.percentile(every, 99)),
        "failed": len(seen.failures),
        "sent late, p99 ms": float(1000 * np.percentile(seen.lateness, 99)),
        **usage.notes(),
    }
    return Sample(float(np.percentile(short, 99)), None, notes)


ROWS = (
    Row("S2", "classification, mixed lengths, through gRPC, saturated", "sequences/s", _throughput),
    Row("S3", "latency of short texts among long ones, through gRPC", "ms, p99", _latency, most_rounds=3),
)
