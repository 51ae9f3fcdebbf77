"""S10 and S11: forecasts, against servers that only echo, and one more day pushed into an open stream against
a call of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np

from benchmarks import client
from benchmarks.baselines import echo_server
from benchmarks.models import SHIPPED
from benchmarks.rounds import Sample, ratio
from benchmarks.servers import Server, serve, serve_echo
from benchmarks.workshop import Contest, Row, Skipped, Workshop
from seqserve.inference import grpc_service_pb2 as oip
from seqserve.v1 import forecasting_pb2 as pb
from training.data.files import read_table
from training.data.sources import GOOG

MODEL = "stock"
COLUMNS = ("open", "high", "low", "close", "volume")
DAYS = 7
IN_FLIGHT = 32
# Notes: how long a unary call takes.
P50_MS, P99_MS = "p50 ms", "p99 ms"
FRONTS = ("asyncio", "threads-4", "threads-32")
# The aim of both: at most 1.5 times the time of an echo that parses and serializes the same messages.
OF_PARSING = 1 / 1.5
OURS = "Forecast"
ECHO = "echo, asyncio"


def observations() -> list[pb.Observation]:
    """Days of GOOG, oldest first."""
    return [pb.Observation(values=map(float, row.cells)) for row in read_table(GOOG.path, COLUMNS)]


def unary_requests(count: int) -> list[bytes]:
    """Forecasts after 7 days each, of another week each."""
    days = observations()
    starts = [index % (len(days) - DAYS) for index in range(count)]
    return [
        pb.ForecastRequest(
            model=MODEL, series=[pb.Series(observations=days[start : start + DAYS])]
        ).SerializeToString()
        for start in starts
    ]


def unary(
    workshop: Workshop,
    server: Server,
    method: str,
    requests: Sequence[bytes],
    in_flight: int = IN_FLIGHT,
) -> Callable[[], Sample]:
    """Calls a second with so many in flight; what one of them takes is noted."""

    async def work() -> Sample:
        latencies: list[float] = []
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.closed_loop(channel, method, requests, in_flight, latencies)
            usage.stop()
        assert all(answers), "an answer is empty"
        made = usage.sample(len(answers))
        p50, p99 = (1000 * float(np.percentile(latencies, percent)) for percent in (50, 99))
        return Sample(made.value, made.by_cpu, {**made.notes, P50_MS: p50, P99_MS: p99})

    return lambda: workshop.run(work())


async def _one_answer(server: Server, request: bytes, method: str = client.FORECAST) -> bytes:
    async with client.connection(server) as channel:
        return (await client.closed_loop(channel, method, [request], 1))[0]


@contextmanager
def _unary(workshop: Workshop) -> Iterator[Contest]:
    core = workshop.cores.server
    requests = unary_requests(workshop.size(2000, 500))
    with ExitStack() as stack:
        ours = stack.enter_context(serve(SHIPPED, core))
        answer = workshop.run(_one_answer(ours, requests[0]))
        assert len(pb.ForecastResponse.FromString(answer).forecasts) == 1, "expected one forecast"
        contestants = {OURS: unary(workshop, ours, client.FORECAST, requests)}
        for front in (*FRONTS, "forecast"):
            server = stack.enter_context(serve_echo(front, len(answer), core))
            contestants[f"echo, {front}"] = unary(workshop, server, echo_server.UNARY, requests)
        for warm_up in contestants.values():
            warm_up()
        claims = [ratio(f"Forecast / echo on {front}", OURS, f"echo, {front}", 0.65) for front in FRONTS]
        claims.append(ratio("Forecast / echo that parses", OURS, "echo, forecast", OF_PARSING))
        sizes = f"{DAYS} days ({len(requests[0])} bytes) to a forecast ({len(answer)} bytes)"
        load = f"{len(requests):,} unary calls, {IN_FLIGHT} in flight on one connection; {sizes}"
        yield Contest(contestants, claims, load)


def infer_requests(count: int) -> list[bytes]:
    """The same forecasts as the Open Inference Protocol asks for them, with raw contents."""
    days = np.array([day.values for day in observations()], np.float32)
    starts = [index % (len(days) - DAYS) for index in range(count)]
    shape = [1, DAYS, len(COLUMNS)]
    return [
        oip.ModelInferRequest(
            model_name=MODEL,
            inputs=[oip.ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=shape)],
            raw_input_contents=[days[start : start + DAYS].tobytes()],
        ).SerializeToString()
        for start in starts
    ]


@contextmanager
def _infer(workshop: Workshop) -> Iterator[Contest]:
    core = workshop.cores.server
    requests = infer_requests(workshop.size(2000, 500))
    with serve(SHIPPED, core) as ours:
        answer = workshop.run(_one_answer(ours, requests[0], client.MODEL_INFER))
        assert oip.ModelInferResponse.FromString(answer).raw_output_contents, "expected a forecast"
        with (
            serve_echo("asyncio", len(answer), core) as echo,
            serve_echo("infer", len(answer), core) as parsing,
        ):
            contestants = {
                "ModelInfer": unary(workshop, ours, client.MODEL_INFER, requests),
                ECHO: unary(workshop, echo, echo_server.UNARY, requests),
                "echo, infer": unary(workshop, parsing, echo_server.UNARY, requests),
            }
            for warm_up in contestants.values():
                warm_up()
            claims = [
                ratio("ModelInfer / echo on asyncio", "ModelInfer", ECHO, 0.65),
                ratio("ModelInfer / echo that parses", "ModelInfer", "echo, infer", OF_PARSING),
            ]
            sizes = f"{DAYS} days ({len(requests[0])} bytes) to a forecast ({len(answer)} bytes)"
            load = f"{len(requests):,} unary calls, {IN_FLIGHT} in flight on one connection; {sizes}"
            yield Contest(contestants, claims, load)


def stream_messages(number: int, count: int) -> list[bytes]:
    """A stream's messages: a week, then day after day."""
    days = observations()
    start = 40 * number % (len(days) - DAYS - count)
    first = pb.ForecastStreamRequest(model=MODEL, observations=days[start : start + DAYS])
    later = (
        pb.ForecastStreamRequest(observations=[day]) for day in days[start + DAYS : start + DAYS + count - 1]
    )
    return [message.SerializeToString() for message in (first, *later)]


@contextmanager
def _stream(workshop: Workshop) -> Iterator[Contest]:
    core = workshop.cores.server
    each = workshop.size(150, 20)
    messages = [stream_messages(number, each) for number in range(IN_FLIGHT)]
    requests = unary_requests(workshop.size(2000, 500))
    with serve(SHIPPED, core) as ours:
        answer = workshop.run(_probe(ours, messages[0][0]))
        with serve_echo("asyncio", len(answer), core) as echo:
            contestants = {
                "ForecastStream": pushed(workshop, ours, client.FORECAST_STREAM, messages, check_forecasts),
                OURS: unary(workshop, ours, client.FORECAST, requests),
                "echo in streams, asyncio": pushed(
                    workshop, echo, echo_server.STREAM, messages, lambda _: None
                ),
            }
            for warm_up in contestants.values():
                warm_up()
            claims = [
                ratio(
                    "one more day in an open stream / unary Forecast of 7 days", "ForecastStream", OURS, 2.5
                ),
                ratio(
                    "ForecastStream / echo in streams on asyncio",
                    "ForecastStream",
                    "echo in streams, asyncio",
                ),
            ]
            load = (
                f"{IN_FLIGHT} streams on one connection, {each} messages each, "
                f"one in flight in each; unary: {IN_FLIGHT} in flight"
            )
            yield Contest(contestants, claims, load)


async def _probe(server: Server, message: bytes) -> bytes:
    try:
        async with client.connection(server) as channel:
            (answers,) = await client.ping_pong(channel, client.FORECAST_STREAM, [[message]])
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise Skipped("ForecastStream answers UNIMPLEMENTED") from error
        raise
    return answers[0]


def check_forecasts(answers: list[bytes]) -> None:
    """Every answer of a stream is a forecast."""
    for answer in map(pb.ForecastStreamResponse.FromString, answers):
        assert answer.HasField("forecast"), f"an answer is an error: {answer.error.message}"


def pushed(
    workshop: Workshop,
    server: client.Target,
    method: str,
    messages: Sequence[Sequence[bytes]],
    check: Callable[[list[bytes]], None],
) -> Callable[[], Sample]:
    """Messages a second through streams side by side, one in flight in each."""

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.ping_pong(channel, method, messages)
            usage.stop()
        assert list(map(len, answers)) == list(map(len, messages)), "expected an answer to each message"
        check([data for part in answers for data in part])
        return usage.sample(sum(map(len, answers)))

    return lambda: workshop.run(work())


ROWS = (
    Row("S10", "unary forecasts, 32 in flight", "calls/s", _unary),
    Row("S10i", "unary ModelInfer of forecasts, 32 in flight", "calls/s", _infer),
    Row("S11", "one more day into open streams", "messages/s", _stream),
)
