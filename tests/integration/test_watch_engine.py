"""Models.WatchEngine of the real server: what watches see of calls, and that they hold nobody up."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from seqserve import AsyncClient, Client, EngineTick, EngineTicks, PermissionDenied, RowKind, TickKind
from seqserve.v1 import models_pb2 as models
from service.api.engine_watches import METHOD
from tests import tiny
from tests.contract2 import POOLED, export, sequences_of
from tests.deaf import deaf
from tests.integration.process import ServerProcess
from tests.integration.test_lifecycle import get

PATIENCE_S = 30
TRIES = 5
STEPPED, LETTERS, MOODS = "stepped", "letters", "moods"
SHOP, KEEPER = "shop-7c1f", "keeper-09ab"
LONG_DRAIN_S, QUICK_END_S = 60, 15
LENGTHS = (9, 1, 9, 14, 10, 2, 9, 30, 11, 9)


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server of a model with a generation graph, one without, a classifier, and a whole network."""
    repository = tmp_path_factory.mktemp("watched")
    tiny.export_generator(repository, STEPPED, has_generation=True)
    tiny.export_generator(repository, LETTERS)
    tiny.export_classifier(repository)
    export(POOLED, repository)
    async with ServerProcess(repository, {"ENGINES": "1"}) as server:
        yield server


class Watching:
    """A watch whose items are gathered; the first has been received."""

    def __init__(self, items: AsyncIterator[EngineTicks], first: EngineTicks) -> None:
        self._items = items
        self.all = [first]

    async def until(self, is_enough: Callable[[Sequence[EngineTicks]], bool]) -> None:
        """Receive items until there are enough."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_enough(self.all):
                self.all.append(await anext(self._items))

    async def until_idle(self) -> None:
        """Receive items until nothing has run since the one before."""
        await self.until(
            lambda items: len(items) > 1 and not items[-1].ticks and not items[-1].active_sequences
        )

    @property
    def ticks(self) -> list[EngineTick]:
        return [tick for item in self.all for tick in item.ticks]

    def steps_of_rows(self) -> dict[int, int]:
        """Return the time steps of each sequence."""
        found: dict[int, int] = {}
        for tick in self.ticks:
            for row in tick.rows:
                found[row.sequence] = found.get(row.sequence, 0) + row.steps
        return found


@asynccontextmanager
async def watching(client: AsyncClient, model: str) -> AsyncIterator[Watching]:
    async with client.watch_engine(model) as watch, asyncio.timeout(PATIENCE_S):
        items = aiter(watch)
        yield Watching(items, await anext(items))


async def generate(client: AsyncClient, model: str, max_tokens: int, seed: int = 1) -> None:
    await client.generate("abc" * 4, model=model, max_tokens=max_tokens, seed=seed).read()


# A tick of the generation graph has some tens of steps.
@pytest.mark.parametrize(
    ("model", "lengths"), [(LETTERS, (120, 20, 40)), (STEPPED, (2000, 300, 500))], ids=[LETTERS, STEPPED]
)
async def test_generations_are_seen_to_join_and_leave(
    server: ServerProcess, model: str, lengths: tuple[int, ...]
) -> None:
    for _ in range(TRIES):
        async with AsyncClient(server.address) as client, watching(client, model) as watch:
            await asyncio.gather(*(generate(client, model, length) for length in lengths))
            await watch.until_idle()
        if not any(item.dropped_ticks for item in watch.all):
            break  # a busy machine drops ticks that came faster than they are converted
    kinds = {tick.kind: {row.kind for row in tick.rows} for tick in watch.ticks}
    assert kinds == {TickKind.CHUNK: {RowKind.PREFILL}, TickKind.STEP: {RowKind.DECODE}}
    steps = [tick for tick in watch.ticks if tick.kind is TickKind.STEP]
    assert max(len(tick.rows) for tick in steps) >= 2
    # The longest is alone at the end, in the slot that it had in company.
    [last] = steps[-1].rows
    slots = {row.slot for tick in steps for row in tick.rows if row.sequence == last.sequence}
    assert slots == {last.slot}
    made: dict[int, int] = {}
    for tick in steps:
        for row in tick.rows:
            made[row.sequence] = made.get(row.sequence, 0) + row.steps
    assert sorted(made.values()) == sorted(lengths)
    if model == STEPPED:
        assert max(tick.steps for tick in steps) > 1


async def test_ticks_sum_up_to_the_counters_and_to_the_metrics(server: ServerProcess) -> None:
    async with AsyncClient(server.address) as client, watching(client, MOODS) as watch:
        before = await steps_in_metrics(server, MOODS)
        texts = ["good", "a bad film and a long one", "so", "x" * 90] * 5
        await asyncio.gather(*(client.classify(texts, model=MOODS) for _ in range(3)))
        await watch.until_idle()
        after = await steps_in_metrics(server, MOODS)
    first, last = watch.all[0].counters, watch.all[-1].counters
    assert [item.dropped_ticks for item in watch.all] == [0] * len(watch.all)
    useful = sum(tick.useful_steps for tick in watch.ticks)
    padded = sum(tick.padded_steps for tick in watch.ticks)
    assert useful == last.useful_steps - first.useful_steps == after["useful"] - before["useful"]
    assert padded == last.padded_steps - first.padded_steps == after["padded"] - before["padded"]
    assert len(watch.ticks) == last.ticks - first.ticks
    assert sum(len(tick.rows) for tick in watch.ticks) == last.rows - first.rows
    assert len(watch.steps_of_rows()) == last.admitted - first.admitted == 3 * len(texts)
    assert {row.kind for tick in watch.ticks for row in tick.rows} == {RowKind.LAST}


async def steps_in_metrics(server: ServerProcess, model: str) -> dict[str, float]:
    """Return the useful and the padded time steps of a model."""
    _, text = await get(f"{server.http}/metrics")
    return {
        kind: float(line.rpartition(" ")[2])
        for kind in ("useful", "padded")
        for line in text.splitlines()
        if line.startswith("seqserve_steps_total") and f'"{model}"' in line and f'"{kind}"' in line
    }


async def test_whole_batches_are_seen_with_all_steps_of_their_rows(server: ServerProcess) -> None:
    async with AsyncClient(server.address) as client, watching(client, POOLED.name) as watch:
        await client.infer(sequences_of(POOLED, LENGTHS), model=POOLED.name)
        await watch.until_idle()
    assert {tick.kind for tick in watch.ticks} == {TickKind.WHOLE}
    assert sorted(watch.steps_of_rows().values()) == sorted(LENGTHS)
    assert all(len({row.slot for row in tick.rows}) == len(tick.rows) for tick in watch.ticks)


async def test_time_to_first_token_is_counted(server: ServerProcess) -> None:
    async with AsyncClient(server.address) as client, watching(client, LETTERS) as watch:
        await asyncio.gather(*(generate(client, LETTERS, 5, seed) for seed in range(3)))
        await watch.until_idle()
    first, last = watch.all[0].counters, watch.all[-1].counters
    assert last.first_tokens - first.first_tokens == 3
    assert last.time_to_first_token_s > first.time_to_first_token_s
    assert last.tokens_generated - first.tokens_generated == 15


def test_blocking_client_watches_and_ends(server: ServerProcess) -> None:
    with Client(server.address) as client:
        watch = client.watch_engine(LETTERS)
        for item in watch:
            assert (item.model, item.version, item.ticks) == (LETTERS, 1, ())
            watch.close()


# A server with tokens, which may watch as administrators alone, and whose models may change.


class Guarded(NamedTuple):
    """The server, and the folder of its models."""

    server: ServerProcess
    folder: Path


@pytest_asyncio.fixture(scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    tiny.export_classifier(folder / "models")
    tokens = folder / "tokens"
    tokens.write_text(f"predict shop {SHOP}\nadmin keeper {KEEPER}\n")
    settings = {"TOKENS": str(tokens), "WATCH_ENGINE": "admin", "WATCH_SECONDS": "0.1"}
    async with ServerProcess(folder / "models", settings) as server:
        yield Guarded(server, folder)


async def test_token_without_the_right_may_not_watch(guarded: Guarded) -> None:
    async with AsyncClient(guarded.server.address, token=SHOP) as client:
        with pytest.raises(PermissionDenied, match="needs the right admin"):
            await anext(aiter(client.watch_engine(MOODS)))


async def test_watch_goes_on_with_the_version_that_replaces_the_watched_one(guarded: Guarded) -> None:
    server, folder = guarded
    async with AsyncClient(server.address, token=KEEPER) as client, watching(client, MOODS) as watch:
        assert watch.all[0].version == 1
        made = shutil.copytree(folder / "models" / MOODS / "1", folder / "made")
        tiny.edit_spec(made, version=2)
        made.rename(folder / "models" / MOODS / "2")
        await watch.until(lambda items: items[-1].version == 2)
    times = [item.now_s for item in watch.all]
    assert times == sorted(times)


async def test_watchers_who_never_read_slow_neither_calls_nor_others_nor_the_end(tmp_path: Path) -> None:
    tiny.export_generator(tmp_path)
    server = ServerProcess(tmp_path, {"GRACE_SECONDS": "0", "DRAIN_SECONDS": str(LONG_DRAIN_S)})
    async with server:
        async with asyncio.timeout(PATIENCE_S), deaf(server.grpc_port) as silent:
            request = models.WatchEngineRequest(model=LETTERS).SerializeToString()
            await silent.call(METHOD, [request] * 4)
            async with AsyncClient(server.address) as client, watching(client, LETTERS) as watch:
                await generate(client, LETTERS, 100)
                await watch.until_idle()
            assert sum(row.kind is RowKind.DECODE for tick in watch.ticks for row in tick.rows) == 100
            server.terminate()
            async with asyncio.timeout(QUICK_END_S):
                assert await server.ended() == 0
        [cut] = [one for one in server.events if one["event"] == "watchers do not read and are cut off"]
        assert cut["watches"] == 4
        assert [event for event in server.events if event["level"] == "error"] == []
