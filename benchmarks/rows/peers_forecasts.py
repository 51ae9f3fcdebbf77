"""P3 and P4: the tiny forecast of seven days through unary ModelInfer and in streams, against Triton."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from benchmarks import client
from benchmarks.models import SHIPPED, shipped
from benchmarks.neighbour import beside_neighbour
from benchmarks.peers import catalog
from benchmarks.peers.load import closed_loop
from benchmarks.peers.messages import streamed_tensors_of, tensors_of
from benchmarks.peers.repository import TritonModel
from benchmarks.peers.triton import Triton
from benchmarks.rounds import Sample, ratio
from benchmarks.rows.forecasting import MODEL, check_forecasts, infer_requests, pushed, stream_messages
from benchmarks.rows.peers import P50_MS, P99_MS, fastest, note_ratio, triton_of
from benchmarks.servers import Server, serve
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.inference import grpc_service_pb2 as oip

IN_FLIGHT = 32
CONNECTIONS = 4
SEVERAL = f", {CONNECTIONS} connections"
NEIGHBOUR = ", busy neighbour"
OURS, BEST = "ours, ModelInfer", "Triton, ModelInfer"
FORECAST_STREAM = "ours, ForecastStream"
OUR_STREAMS, ITS_STREAMS = "ours, ModelStreamInfer", "Triton, ModelStreamInfer"
ONE_CALL = ", one call"
RELATIVE_TOLERANCE = 1e-4
# Forms of its best: how long a request waits for others, microseconds.
DELAYS_US = (0, 100, 500)


def models_of() -> dict[str, TritonModel]:
    """Return the forms of Triton's best by a sentence on each."""
    model = shipped(MODEL)
    return {
        f"a queue delay of {delay} us": catalog.forecasts(f"stock-{delay}", model, delay)
        for delay in DELAYS_US
    }


def named(requests: Sequence[bytes], name: str) -> list[bytes]:
    """Return the same requests to a model of another name."""
    made = []
    for data in requests:
        request = oip.ModelInferRequest.FromString(data)
        request.model_name = name
        made.append(request.SerializeToString())
    return made


def check_equal(answers: Sequence[bytes], expected: Sequence[bytes]) -> None:
    """Both servers gave the same forecasts, within 1e-4 of each value."""
    for found, wanted in zip(map(tensors_of, answers), map(tensors_of, expected), strict=True):
        for name in ("value", "quantiles"):
            np.testing.assert_allclose(found.numbers(name), wanted.numbers(name), RELATIVE_TOLERANCE)


def unary(
    workshop: Workshop, server: client.Target, requests: Sequence[bytes], connections: int = 1
) -> Callable[[], Sample]:
    """Return a contestant: calls a second, with the latencies as notes."""

    def run() -> Sample:
        seen = workshop.run(closed_loop(server, client.MODEL_INFER, requests, IN_FLIGHT, connections))
        made = seen.usage.sample(len(requests))
        notes = {P50_MS: seen.percentile(50), P99_MS: seen.percentile(99)}
        return Sample(made.value, made.by_cpu, {**notes, **made.notes})

    return run


def check_streamed(answers: Sequence[bytes]) -> None:
    """Every answer of ModelStreamInfer is a forecast."""
    for answer in answers:
        assert "value" in streamed_tensors_of(answer).raw, "expected a forecast"


def windowed(workshop: Workshop, server: client.Target, requests: Sequence[bytes]) -> Callable[[], Sample]:
    """Return a contestant: forecasts a second in one call of ModelStreamInfer, 32 of them unanswered."""

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.stream_windowed(channel, client.MODEL_STREAM_INFER, requests, 1, IN_FLIGHT)
            usage.stop()
        assert len(answers) == len(requests), "expected an answer to each request"
        check_streamed(answers)
        return usage.sample(len(answers))

    return lambda: workshop.run(work())


@contextmanager
def _opened(workshop: Workshop, count: int) -> Iterator[tuple[Server, Triton, str, dict[str, float]]]:
    """Run both servers; give them, the name of Triton's fastest form, and the speed of each form."""
    forms = models_of()
    requests = infer_requests(count)
    with (
        triton_of(workshop, list(forms.values())) as triton,
        serve(SHIPPED, workshop.cores.server) as ours,
    ):
        best, values = fastest(
            {what: unary(workshop, triton, named(requests, form.name)) for what, form in forms.items()}
        )
        name = forms[best].name
        found, wanted = (
            workshop.run(closed_loop(server, client.MODEL_INFER, sent, IN_FLIGHT)).answers
            for server, sent in ((triton, named(requests, name)), (ours, requests))
        )
        check_equal(found, wanted)
        yield ours, triton, name, {f"Triton, {what}, calls/s": value for what, value in values.items()}


@contextmanager
def _unary(workshop: Workshop) -> Iterator[Contest]:
    count = workshop.size(3000, 500)
    requests = infer_requests(count)
    with _opened(workshop, count) as (ours, triton, name, facts):
        sent = named(requests, name)
        contestants = {
            OURS: unary(workshop, ours, requests),
            BEST: unary(workshop, triton, sent),
            OURS + SEVERAL: unary(workshop, ours, requests, CONNECTIONS),
            BEST + SEVERAL: unary(workshop, triton, sent, CONNECTIONS),
        }
        for side in (OURS, BEST):
            contestants[side + NEIGHBOUR] = beside_neighbour(contestants[side], workshop.cores.server)
        claims = [
            ratio("P3: ours / Triton's best", OURS, BEST, 0.55),
            ratio(f"P3: ours / Triton's best{SEVERAL}", OURS + SEVERAL, BEST + SEVERAL, 0.55),
            note_ratio("P3: p99: ours / Triton's best", P99_MS, OURS, BEST, 2.0, is_at_most=True),
            ratio(f"P3: ours / Triton's best{NEIGHBOUR}", OURS + NEIGHBOUR, BEST + NEIGHBOUR),
            note_ratio(
                f"P3: p99: ours / Triton's best{NEIGHBOUR}",
                P99_MS,
                OURS + NEIGHBOUR,
                BEST + NEIGHBOUR,
                2.0,
                is_at_most=True,
            ),
        ]
        load = (
            f"{count:,} forecasts of 7 days, unary ModelInfer with raw contents, the same bytes to both, "
            f"{IN_FLIGHT} in flight on one connection or {CONNECTIONS}, also beside a process that keeps the "
            "server's core busy; Triton's best is the fastest of the forms below; answers are compared"
        )
        yield Contest(contestants, claims, load, facts)


@contextmanager
def _streams(workshop: Workshop) -> Iterator[Contest]:
    each = workshop.size(100, 20)
    requests = infer_requests(IN_FLIGHT * each)
    with _opened(workshop, workshop.size(3000, 500)) as (ours, triton, name, facts):

        def in_streams(server: client.Target, sent: list[bytes]) -> Callable[[], Sample]:
            dealt = client.batches(sent, each)
            return pushed(workshop, server, client.MODEL_STREAM_INFER, dealt, check_streamed)

        days = [stream_messages(number, each) for number in range(IN_FLIGHT)]
        sent = named(requests, name)
        contestants = {
            FORECAST_STREAM: pushed(workshop, ours, client.FORECAST_STREAM, days, check_forecasts),
            OUR_STREAMS: in_streams(ours, requests),
            ITS_STREAMS: in_streams(triton, sent),
            OUR_STREAMS + ONE_CALL: windowed(workshop, ours, requests),
            ITS_STREAMS + ONE_CALL: windowed(workshop, triton, sent),
            BEST: unary(workshop, triton, sent),
        }
        for warm_up in contestants.values():
            warm_up()
        claims = [
            ratio("P4: ForecastStream / Triton's ModelStreamInfer", FORECAST_STREAM, ITS_STREAMS, 1.2),
            ratio("P4: ForecastStream / Triton's unary best", FORECAST_STREAM, BEST, 1.2),
            ratio("P4: ModelStreamInfer, ours / Triton's", OUR_STREAMS, ITS_STREAMS, 1.2),
            ratio(
                "P4: ModelStreamInfer in one call, ours / Triton's",
                OUR_STREAMS + ONE_CALL,
                ITS_STREAMS + ONE_CALL,
                1.2,
            ),
            ratio(
                "P4: ModelStreamInfer in one call / Triton's unary best", OUR_STREAMS + ONE_CALL, BEST, 1.2
            ),
        ]
        load = (
            f"{len(requests):,} forecasts; {IN_FLIGHT} streams on one connection, one message in flight in "
            f"each, or one call with {IN_FLIGHT} unanswered; ModelStreamInfer gets 7 days a message, "
            "the same bytes on both sides, ForecastStream one more day"
        )
        yield Contest(contestants, claims, load, facts)


ROWS = (
    Row("P3", "tiny forecast through unary ModelInfer, against Triton", "calls/s", _unary),
    Row("P4", "tiny forecast in streams, against Triton", "messages/s", _streams),
)
