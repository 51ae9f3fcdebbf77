"""S4 to S6: generation of text, against the bare step loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks import client
from benchmarks.baselines.bare_loop import BareLoop
from benchmarks.inprocess import engine_of, generate, generator, generator_of, runtime_of
from benchmarks.models import Model
from benchmarks.rounds import Claim, Contestants, Sample, ratio, timed
from benchmarks.servers import Server, serve
from benchmarks.untrained import CHARACTERS, LARGE, SMALL
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import text_generation_pb2 as pb

STREAMS = 64
WARM_UP = 16
ENGINE, BARE, GRPC = "engine in process", "bare loop", "through gRPC"


def in_process(
    workshop: Workshop, model: Model, streams: int, characters: int, times: int = 1
) -> Contestants:
    """The engine and the bare loop.

    Args:
        workshop: where.
        model: which generates.
        streams: side by side.
        characters: of each.
        times: how often all of it is done in a turn.
    """
    driven = engine_of(model, runtime_of(model), generator=generator_of(model))
    loop = BareLoop(model, streams)
    generate(driven, streams, WARM_UP)
    loop.generate(WARM_UP)
    work = generator(driven, streams, characters)
    return {
        ENGINE: workshop.alone(lambda: timed(lambda: sum(work() for _ in range(times)))),
        BARE: workshop.alone(lambda: timed(lambda: sum(loop.characters(characters) for _ in range(times)))),
    }


def through_grpc(
    workshop: Workshop, server: Server, model: Model, streams: int, characters: int, times: int = 1
) -> Callable[[], Sample]:
    """The same through gRPC: all streams begin at once, and when the last has ended, all begin again."""

    def request(number: int) -> bytes:
        prompt = CHARACTERS[number % len(CHARACTERS)]
        return pb.GenerateRequest(
            model=model.name, prompt=prompt, max_tokens=characters, temperature=1.0, seed=number
        ).SerializeToString()

    requests = [request(number) for number in range(streams)]

    async def work() -> tuple[list[bytes], client.Usage]:
        received: list[bytes] = []
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            for _ in range(times):
                for stream in await client.server_streams(channel, client.GENERATE, requests):
                    received.extend(arrival.data for arrival in stream)
            usage.stop()
        return received, usage

    def run() -> Sample:
        received, usage = workshop.run(work())
        count = sum(pb.GenerateResponse.FromString(data).token_count for data in received)
        expected = streams * characters * times
        assert count == expected, f"expected {expected} characters, found {count}"
        made = usage.sample(count)
        return Sample(made.value, made.by_cpu, {**made.notes, "characters a message": count / len(received)})

    return run


@contextmanager
def _streams(
    workshop: Workshop, name: str, characters: int, times: int, claims: list[Claim], what: str
) -> Iterator[Contest]:
    model = workshop.model(name)
    with serve(model.repository, workshop.cores.server) as server:
        contestants = {
            **in_process(workshop, model, STREAMS, characters, times),
            GRPC: through_grpc(workshop, server, model, STREAMS, characters, times),
        }
        through_grpc(workshop, server, model, STREAMS, WARM_UP)()
        repeated = f", {times} times over" if times > 1 else ""
        load = (
            f"{STREAMS} streams x {characters} characters{repeated}, "
            f"{what}, one thread; through gRPC on one connection"
        )
        yield Contest(contestants, claims, load)


def _large(workshop: Workshop) -> AbstractContextManager[Contest]:
    claims = [
        ratio("engine in process / bare loop", ENGINE, BARE, 1.15),
        ratio("through gRPC / bare loop", GRPC, BARE, 0.75),
    ]
    return _streams(workshop, LARGE, workshop.size(256, 64), 1, claims, "2 x 512 LSTM")


def _small(workshop: Workshop) -> AbstractContextManager[Contest]:
    claims = [
        ratio("engine in process / bare loop", ENGINE, BARE, 1.40),
        ratio("through gRPC / bare loop", GRPC, BARE, 0.40),
    ]
    return _streams(workshop, SMALL, 256, workshop.size(8, 2), claims, "1 x 128 LSTM")


@contextmanager
def _alone(workshop: Workshop) -> Iterator[Contest]:
    characters = workshop.size(1024, 256)
    claims = [ratio("bare step time / ours", ENGINE, BARE, 0.80)]
    contestants = in_process(workshop, workshop.model(LARGE), 1, characters)
    yield Contest(contestants, claims, f"1 stream x {characters} characters, 2 x 512 LSTM, one thread")


@contextmanager
def _alone_small(workshop: Workshop) -> Iterator[Contest]:
    characters = workshop.size(4096, 1024)
    claims = [ratio("bare step time / ours", ENGINE, BARE, 2.0)]
    contestants = in_process(workshop, workshop.model(SMALL), 1, characters)
    yield Contest(contestants, claims, f"1 stream x {characters} characters, 1 x 128 LSTM, one thread")


ROWS = (
    Row("S4", "generation, 64 streams, 2 x 512", "characters/s", _large),
    Row("S5", "generation, 64 streams, 1 x 128", "characters/s", _small),
    Row("S6", "generation, one stream alone, 2 x 512", "characters/s", _alone),
    Row("S6a", "generation, one stream alone, 1 x 128", "characters/s", _alone_small),
)
