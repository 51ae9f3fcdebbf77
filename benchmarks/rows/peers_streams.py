"""P5: 64 streams of generated text, against continuous batching in Triton's Python backend."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from benchmarks import client
from benchmarks.peers import catalog
from benchmarks.peers.messages import prompt_request, streamed_texts
from benchmarks.rounds import Sample, ratio
from benchmarks.rows.generation import WARM_UP, through_grpc
from benchmarks.rows.peers import triton_of
from benchmarks.servers import serve
from benchmarks.untrained import CHARACTERS, LARGE, SMALL
from benchmarks.workshop import Contest, Row, Workshop

STREAMS = 64
# Time between two messages of a stream of Triton's best: our server sends about as often under this load.
INTERVAL_MS = 50
CHECKED = 32  # characters of each text that are compared
GENERATE, OURS, OURS_ONE_CALL = "ours, Generate", "ours, ModelStreamInfer", "ours, ModelStreamInfer, one call"
BEST, BEST_ONE_CALL = "Triton, best", "Triton, best, one call"
SINGLE = "Triton, a message a character"

Received = tuple[list[list[bytes]], client.Usage]


def requests_of(name: str, characters: int, temperature: float) -> list[bytes]:
    """Return a request for each stream; prompt and seed follow from its number."""
    return [
        prompt_request(name, CHARACTERS[number % len(CHARACTERS)], number, characters, temperature)
        for number in range(STREAMS)
    ]


async def _read(server: client.Target, requests: Sequence[bytes], calls: int, times: int) -> Received:
    received: list[list[bytes]] = []
    async with client.connection(server) as channel:
        usage = client.Usage(server)
        for _ in range(times):
            received.append(
                await client.stream_windowed(
                    channel, client.MODEL_STREAM_INFER, requests, calls, len(requests) // calls
                )
            )
        usage.stop()
    return received, usage


def streamed(
    workshop: Workshop, server: client.Target, name: str, calls: int, characters: int, times: int
) -> Callable[[], Sample]:
    """Return a contestant: characters a second through ModelStreamInfer.

    Args:
        workshop: where.
        server: to call.
        name: of the model.
        calls: over how many calls the 64 streams are spread.
        characters: of each stream.
        times: how often all of it is done.
    """
    requests = requests_of(name, characters, 1.0)

    def run() -> Sample:
        received, usage = workshop.run(_read(server, requests, calls, times))
        for answers in received:
            found = list(map(len, streamed_texts(answers).values()))
            assert found == [characters] * STREAMS, f"expected {STREAMS} x {characters}, found {found}"
        count = STREAMS * characters * times
        made = usage.sample(count)
        num_messages = sum(map(len, received))
        notes = {
            "characters a message": count / num_messages,
            "ms between messages": 1000 * usage.wall_s * STREAMS / num_messages,
        }
        return Sample(made.value, made.by_cpu, {**made.notes, **notes})

    return run


def check_equal(workshop: Workshop, ours: client.Target, triton: client.Target, name: str) -> None:
    """Both servers write the same text, at temperature 0 and for the same seeds at temperature 1."""
    for temperature in (0.0, 1.0):
        requests = requests_of(name, CHECKED, temperature)
        found, wanted = (
            streamed_texts(workshop.run(_read(server, requests, STREAMS, 1))[0][0])
            for server in (triton, ours)
        )
        assert len(wanted) == STREAMS, f"expected {STREAMS} texts, found {len(wanted)}"
        assert found == wanted, f"expected the same texts at temperature {temperature:g}"


@contextmanager
def _streams(workshop: Workshop, name: str, times: int, target: float, what: str) -> Iterator[Contest]:
    model = workshop.model(name)
    characters = workshop.size(256, 64)
    single = f"{name}-single"
    models = [catalog.streams(name, model, INTERVAL_MS), catalog.streams(single, model, 0)]
    with triton_of(workshop, models) as triton, serve(model.repository, workshop.cores.server) as ours:
        check_equal(workshop, ours, triton, name)

        def of(server: client.Target, model_name: str, calls: int) -> Callable[[], Sample]:
            return streamed(workshop, server, model_name, calls, characters, times)

        contestants = {
            GENERATE: through_grpc(workshop, ours, model, STREAMS, characters, times),
            OURS: of(ours, name, STREAMS),
            OURS_ONE_CALL: of(ours, name, 1),
            BEST: of(triton, name, STREAMS),
            BEST_ONE_CALL: of(triton, name, 1),
            SINGLE: streamed(workshop, triton, single, STREAMS, characters, 1),
        }
        streamed(workshop, triton, single, STREAMS, WARM_UP, 1)()
        claims = [
            ratio("P5: Generate / Triton's best", GENERATE, BEST, target),
            ratio("P5: ModelStreamInfer, ours / Triton's best", OURS, BEST, target),
            ratio("P5: one call, ours / Triton's best", OURS_ONE_CALL, BEST_ONE_CALL, target),
            ratio("P5: Generate / Triton, a message a character", GENERATE, SINGLE, target),
        ]
        load = (
            f"{STREAMS} streams x {characters} characters, {times} times over, {what}, one thread; "
            f"Triton batches continuously in its Python backend, its best with a message every "
            f"{INTERVAL_MS} ms; texts are compared"
        )
        yield Contest(contestants, claims, load)


def _large(workshop: Workshop) -> AbstractContextManager[Contest]:
    return _streams(workshop, LARGE, 1, 2.5, "2 x 512 LSTM")


def _small(workshop: Workshop) -> AbstractContextManager[Contest]:
    return _streams(workshop, SMALL, workshop.size(8, 2), 12.0, "1 x 128 LSTM")


ROWS = (
    Row("P5", "64 streams, 2 x 512, against Triton", "characters/s", _large),
    Row("P5s", "64 streams, 1 x 128, against Triton", "characters/s", _small),
)
