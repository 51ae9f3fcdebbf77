"""service.api.engine_watches and service.api.tick_messages: what watches are told, and when they end."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.v1 import models_pb2 as pb
from seqserve.v1 import text_classification_pb2 as classification
from seqserve.v1.models_pb2_grpc import ModelsStub
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from service.api import engine_watches
from service.api.caller import may_administer
from service.api.engine_watches import MAX_WATCHES, EngineWatches, Right
from service.api.tick_messages import CONVERT_S, MAX_COST, TICK_COST, Feed, TickMessages, Watched
from service.engine.ticks import Ran, Ring, RowKind, Seats, TickRecord
from service.errors import NotFound, PermissionDenied, ServiceError, TooManyWatches, Withdrawn
from service.models.loading import Served
from service.models.table import VersionTable
from service.observability.metrics import EngineMetrics
from tests.service.api.conftest import Running
from tests.service.api.rich import code_of_call
from tests.service.builders import load_repository

PATIENCE_S = 20.0
LETTERS = pb.WatchEngineRequest(model="letters")


class Context:
    """A call of a peer."""

    def __init__(self, peer: str = "ipv4:127.0.0.1:1") -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer


class Watching:
    """A watch in a task of its own, as a call is; its messages arrive in `heard`.

    Args:
        watches: serves it.
        peer: address of the caller.
        reads: whether its peer takes more than the first message.
    """

    def __init__(self, watches: EngineWatches, peer: str = "ipv4:127.0.0.1:1", *, reads: bool = True) -> None:
        self.heard: asyncio.Queue[pb.WatchEngineResponse] = asyncio.Queue()
        self._blocked = asyncio.Event()
        self._reads = reads
        self.task = asyncio.create_task(self._run(watches, peer))

    async def _run(self, watches: EngineWatches, peer: str) -> None:
        async for message in watches.watch(LETTERS, Context(peer)):
            self.heard.put_nowait(message)
            if not self._reads:
                await self._blocked.wait()

    async def begun(self) -> pb.WatchEngineResponse:
        """Wait for a message."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.heard.get()

    async def error(self) -> ServiceError:
        """Wait for the error that ends it."""
        with pytest.raises(ServiceError) as ended:
            async with asyncio.timeout(PATIENCE_S):
                await self.task
        return ended.value

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def letters_of(running: Running) -> Served:
    served = running.repository.table.get("letters", 1).served
    assert served is not None
    return served


# Messages.


def record(rows: int, started: float = 1.0, steps: Sequence[int] | None = None) -> TickRecord:
    """Return a chunk tick of so many rows, of 3 time steps each unless others are given."""
    valid = np.array(steps or [3] * rows)
    seats = Seats(list(range(rows)), list(range(10, 10 + rows)), [RowKind.LAST] * rows)
    ran = Ran(int(valid.sum()), int(rows * valid.max() - valid.sum()), valid)
    return TickRecord("chunk", started, started + 0.5, seats, ran, 7)


def feed_of(*rings: Ring[TickRecord], now: float = 0.0) -> Feed:
    watched = Watched("letters", 1, (8,) * len(rings), (EngineMetrics(),), rings)
    return Feed(watched, TickMessages(watched, now))


def test_message_tells_ticks_since_the_one_before_on_the_clock_of_the_watch() -> None:
    ring = Ring[TickRecord]()
    ring.add(record(1))
    feed = feed_of(ring, now=100.0)
    ring.add(record(2, started=101.0, steps=[3, 1]))
    message = feed.read(102.5)
    [tick] = message.ticks
    assert (message.now_seconds, message.dropped_ticks) == (2.5, 0)
    assert (tick.engine, tick.kind, tick.steps, tick.waiting_sequences) == (0, pb.TICK_KIND_CHUNK, 3, 7)
    assert (tick.start_seconds, tick.duration_seconds) == (1.0, 0.5)
    assert (list(tick.row_slots), list(tick.row_sequences), list(tick.row_steps)) == (
        [0, 1],
        [10, 11],
        [3, 1],
    )
    assert list(tick.row_kinds) == [pb.ROW_KIND_LAST] * 2
    assert list(feed.read(103.0).ticks) == []


def test_ticks_of_every_engine_carry_its_number() -> None:
    rings = Ring[TickRecord](), Ring[TickRecord]()
    feed = feed_of(*rings)
    for ring in rings:
        ring.add(record(1))
    assert [tick.engine for tick in feed.read(1.0).ticks] == [0, 1]


def test_ticks_that_a_reader_missed_are_counted() -> None:
    ring = Ring[TickRecord](4)
    feed = feed_of(ring)
    for number in range(7):
        ring.add(record(1, started=float(number)))
    message = feed.read(9.0)
    assert [tick.start_seconds for tick in message.ticks] == [3.0, 4.0, 5.0, 6.0]
    assert message.dropped_ticks == 3


def test_oldest_ticks_that_come_too_fast_are_dropped_and_counted() -> None:
    ring, rows = Ring[TickRecord](), MAX_COST // 4 - TICK_COST
    feed = feed_of(ring)
    for number in range(6):
        ring.add(record(rows, started=float(number)))
    message = feed.read(9.0)
    assert [tick.start_seconds for tick in message.ticks] == [2.0, 3.0, 4.0, 5.0]
    assert message.dropped_ticks == 2


def test_tick_of_more_rows_than_may_be_converted_is_told_alone() -> None:
    ring = Ring[TickRecord]()
    feed = feed_of(ring)
    ring.add(record(1))
    ring.add(record(MAX_COST + 1))
    message = feed.read(9.0)
    assert [len(tick.row_slots) for tick in message.ticks] == [MAX_COST + 1]
    assert message.dropped_ticks == 1


def test_ticks_are_converted_once_for_all_watches_and_not_more_often_than_allowed() -> None:
    ring = Ring[TickRecord]()
    watched = Watched("letters", 1, (8,), (EngineMetrics(),), (ring,))
    messages = TickMessages(watched, 0.0)
    first, second = Feed(watched, messages), Feed(watched, messages)
    ring.add(record(1))
    assert len(first.read(1.0).ticks) == 1
    ring.add(record(1))
    assert len(first.read(1.0 + CONVERT_S / 2).ticks) == 0
    assert len(second.read(1.0 + CONVERT_S / 2).ticks) == 1
    assert len(second.read(1.001 + CONVERT_S).ticks) == 1
    assert messages.rings[0].end == 2


@pytest.mark.parametrize("kind", list(RowKind))
def test_every_kind_of_row_has_its_number(kind: RowKind) -> None:
    ring = Ring[TickRecord]()
    feed = feed_of(ring)
    ring.add(TickRecord("step", 0.0, 1.0, Seats([0], [1], [kind]), Ran(1, 0), 0))
    [tick] = feed.read(1.0).ticks
    assert [pb.RowKind.Name(one) for one in tick.row_kinds] == [f"ROW_KIND_{kind.name}"]
    assert (list(tick.row_steps), tick.steps, tick.kind) == ([1], 1, pb.TICK_KIND_STEP)


# Watches.


async def test_watch_over_the_wire_sees_the_ticks_of_a_call(running: Running) -> None:
    async with asyncio.timeout(PATIENCE_S):
        watch: Any = ModelsStub(running.channel).WatchEngine(pb.WatchEngineRequest(model="moods"))
        first = await watch.read()
        assert (first.model, first.version, list(first.ticks)) == ("moods", 1, [])
        assert list(first.slots) == [one.limits.slots for one in _engines(running, "moods")]
        texts = ["good", "bad and long", "in between"]
        await TextClassificationStub(running.channel).Classify(
            classification.ClassifyRequest(model="moods", texts=texts)
        )
        steps: dict[int, int] = {}
        message = first
        while not message.ticks:
            message = await watch.read()
        for tick in message.ticks:
            for number, count in zip(tick.row_sequences, tick.row_steps, strict=True):
                steps[number] = steps.get(number, 0) + count
        assert message.counters.useful_steps - first.counters.useful_steps == sum(steps.values())
        assert message.counters.ticks - first.counters.ticks == len(message.ticks)
        assert message.counters.admitted - first.counters.admitted == len(steps) == len(texts)
        watch.cancel()


def _engines(running: Running, name: str) -> Sequence[Any]:
    served = running.repository.table.get(name, 1).served
    assert served is not None
    return served.engine.engines


async def test_unknown_model_cannot_be_watched(running: Running) -> None:
    stub = ModelsStub(running.channel)
    assert (
        await code_of_call(stub.WatchEngine(pb.WatchEngineRequest(model="none"))) is grpc.StatusCode.NOT_FOUND
    )
    watches = EngineWatches(running.repository.table)
    with pytest.raises(NotFound):
        await anext(watches.watch(pb.WatchEngineRequest(model="letters", version=9), Context()))
    assert watches.num_open == 0


async def test_watch_without_ticks_is_told_now_and_then(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_watches, "IDLE_S", 0.02)
    watching = Watching(EngineWatches(running.repository.table, interval_s=0.001))
    times = [(await watching.begun()).now_seconds for _ in range(3)]
    assert all(later - earlier >= 0.02 for earlier, later in itertools.pairwise(times))
    await watching.stop()


async def test_engines_record_while_somebody_watches(running: Running) -> None:
    watches, engines = EngineWatches(running.repository.table), letters_of(running).engine.engines
    first, second = Watching(watches), Watching(watches)
    await first.begun()
    recorders = [engine.recorder for engine in engines]
    await second.begun()
    assert None not in recorders
    await first.stop()
    assert [engine.recorder for engine in engines] == recorders
    await second.stop()
    assert [engine.recorder for engine in engines] == [None] * len(engines)
    assert watches.num_open == 0


async def test_end_ends_open_and_new_watches(running: Running) -> None:
    watches = EngineWatches(running.repository.table, interval_s=0.001)
    open_one = Watching(watches)
    await open_one.begun()
    watches.end()
    for watching in (open_one, Watching(watches)):
        assert isinstance(await watching.error(), Withdrawn)
    assert watches.num_open == 0


async def test_version_that_ceases_to_serve_ends_its_watches(running: Running) -> None:
    table, entry = VersionTable(), running.repository.table.get("letters", 1)
    table.set(entry)
    watching = Watching(EngineWatches(table, interval_s=0.001))
    await watching.begun()
    table.remove(entry)
    assert isinstance(await watching.error(), Withdrawn)


async def test_watch_whose_peer_does_not_read_keeps_no_version_in_memory(models: Path) -> None:
    repository = load_repository(models)
    kept = weakref.ref(repository.table.get("letters", 1).served)
    watching = Watching(EngineWatches(repository.table), reads=False)
    await watching.begun()
    repository.stop()
    for entry in repository.table.entries():
        repository.table.remove(entry)
    del repository, entry
    gc.collect()
    assert kept() is None
    assert not watching.task.done()
    await watching.stop()


# Who may watch, and how many.


@pytest.mark.parametrize(
    ("right", "text"),
    [("admin", "needs the right admin"), ("off", "is off on this server")],
)
async def test_caller_without_the_right_may_not_watch(running: Running, right: Right, text: str) -> None:
    watches = EngineWatches(running.repository.table, right)
    with pytest.raises(PermissionDenied, match=text):
        await anext(watches.watch(LETTERS, Context()))


async def test_right_is_asked_before_the_model_is_looked_up(running: Running) -> None:
    watches = EngineWatches(running.repository.table, "off")
    with pytest.raises(PermissionDenied):
        await anext(watches.watch(pb.WatchEngineRequest(model="none"), Context()))


async def test_administrator_may_watch_where_the_right_is_admin(running: Running) -> None:
    token = may_administer.set(True)
    watching = Watching(EngineWatches(running.repository.table, "admin"))
    may_administer.reset(token)
    assert (await watching.begun()).model == "letters"
    await watching.stop()


async def test_one_caller_leaves_watches_for_others(running: Running) -> None:
    watches = EngineWatches(running.repository.table)
    greedy = [Watching(watches, "ipv4:10.0.0.1:1") for _ in range(MAX_WATCHES // 2)]
    for watching in greedy:
        await watching.begun()
    refused = await Watching(watches, "ipv4:10.0.0.1:1").error()
    assert isinstance(refused, TooManyWatches)
    assert "8 that are free of 16, found 8 and one more" in str(refused)
    other = Watching(watches, "ipv4:10.0.0.2:1")
    await other.begun()
    assert watches.num_open == MAX_WATCHES // 2 + 1
    for watching in (*greedy, other):
        await watching.stop()
    assert watches.num_open == 0
    again = Watching(watches, "ipv4:10.0.0.1:1")
    await again.begun()
    await again.stop()
