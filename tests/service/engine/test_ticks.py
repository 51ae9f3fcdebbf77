"""service.engine.ticks: a ring that any thread reads, and records of what an engine's ticks have run."""

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.core import EngineCore
from service.engine.request import Row
from service.engine.ticks import Ring, RowKind, TickRecord, TickRecorder
from tests.service.engine.fakes import (
    LONG,
    Bench,
    FakeCell,
    every_of,
    generation_of,
    last_of,
    mixed,
    reader_of,
    score_of,
)
from tests.service.engine.whole_fakes import FakeWholeCell, WholeBench, rows_of

NUM_RECORDS, NUM_READERS = 20_000, 4
PATIENCE_S = 30.0


@pytest.fixture
def short_switches() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def records_of(bench: Bench) -> list[TickRecord]:
    """Return all ticks of a bench's recorder so far."""
    recorder = bench.engine.recorder
    assert recorder is not None
    reading = recorder.ring.read(0)
    assert reading.num_lost == 0
    return reading.records


def rows_in(record: TickRecord) -> dict[int, tuple[int, RowKind, int]]:
    """Return slot, kind and steps of each row of a tick by its number."""
    seats = record.seats
    assert len(seats.numbers) == len(set(seats.numbers)) == len(set(seats.slots))
    each = zip(seats.numbers, seats.slots, seats.kinds, record.row_steps, strict=True)
    return {number: (slot, kind, steps) for number, slot, kind, steps in each}


# The ring.


@given(size=st.integers(1, 5), parts=st.lists(st.integers(0, 9), max_size=8))
def test_ring_gives_the_last_records_in_order_and_counts_the_others(size: int, parts: list[int]) -> None:
    ring = Ring[int](size)
    added, position = 0, 0
    for part in parts:
        for _ in range(part):
            ring.add(added)
            added += 1
        found, num_lost, end = ring.read(position)
        assert found == list(range(position, added))[-size:]
        assert (num_lost, end) == (max(0, added - position - size), added)
        position = end


@pytest.mark.usefixtures("short_switches")
def test_readers_of_a_ring_lose_nothing_uncounted_while_a_thread_writes() -> None:
    ring = Ring[int](16)
    faults: list[str] = []

    def read() -> None:
        position = num_found = num_lost = 0
        last = -1
        while position < NUM_RECORDS:
            found, lost, end = ring.read(position)
            if any(not position <= one < end for one in found) or found != sorted({*found}):
                faults.append(f"expected numbers of [{position}, {end}) in order, found {found}")
            if found and found[0] <= last:
                faults.append(f"expected numbers above {last}, found {found[0]}")
            last = found[-1] if found else last
            num_found, num_lost, position = num_found + len(found), num_lost + lost, end
        if num_found + num_lost != NUM_RECORDS:
            faults.append(f"expected {NUM_RECORDS} records, found {num_found} and {num_lost} lost")

    readers = [threading.Thread(target=read) for _ in range(NUM_READERS)]
    for reader in readers:
        reader.start()
    for number in range(NUM_RECORDS):
        ring.add(number)
    for reader in readers:
        reader.join(PATIENCE_S)
    assert not any(reader.is_alive() for reader in readers)
    assert faults == []


# What an engine records.


def test_engine_that_nobody_watches_records_nothing() -> None:
    bench = Bench()
    (ring,) = bench.group.start_recording()
    bench.group.stop_recording()
    bench.run(*mixed())
    assert bench.engine.recorder is None
    assert ring.read(0) == ([], 0, 0)


def test_recorder_that_is_taken_away_in_a_turn_ends_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, left = Bench(), [TickRecorder()]
    monkeypatch.setattr(
        EngineCore, "recorder", property(lambda _: left.pop() if left else None), raising=False
    )
    assert not bench.engine.run_turn().is_busy
    assert left == []


@pytest.mark.parametrize("chunk", [1, 4])
def test_ticks_sum_up_to_the_metrics_and_to_the_steps_of_each_row(chunk: int) -> None:
    bench, rows = Bench(slots=4, chunk=chunk), mixed()
    bench.group.start_recording()
    bench.run(*rows)
    records, metrics = records_of(bench), bench.metrics
    assert Counter(one.kind for one in records) == {
        kind: sum(ticks.counts) for kind, ticks in metrics.tick_seconds.items() if sum(ticks.counts)
    }
    assert sum(len(one.seats.slots) for one in records) == metrics.batch_rows.sum
    assert sum(one.ran.useful for one in records) == metrics.steps["useful"].value
    assert sum(one.ran.padded for one in records) == metrics.steps["padded"].value
    assert all(sum(one.row_steps) == one.ran.useful for one in records)
    steps = Counter[int]()
    for record in records:
        for number, (_, _, count) in rows_in(record).items():
            steps[number] += count
    assert sorted(steps.values()) == sorted(row.prefill_steps + row.request.max_tokens for row in rows)


def test_rows_have_the_kind_of_what_they_are_run_for() -> None:
    bench = Bench(slots=4, chunk=8)
    bench.group.start_recording()
    bench.run(last_of(LONG[:3]), every_of(LONG[:3]), score_of(LONG[:3]), generation_of(LONG[:3], 2))
    first, *others = records_of(bench)
    assert [kind for _, kind, _ in rows_in(first).values()] == [
        RowKind.LAST,
        RowKind.EVERY,
        RowKind.SCORE,
        RowKind.PREFILL,
    ]
    assert [kind for one in others for _, kind, _ in rows_in(one).values()] == [RowKind.DECODE] * 2


def test_row_keeps_its_slot_and_number_while_others_join_and_leave() -> None:
    """The short one leaves, and the pool moves the long one to its place; a newcomer gets the free slot."""
    bench = Bench(slots=2, chunk=1)
    bench.group.start_recording()
    bench.submit(last_of(LONG[:2]), last_of(LONG[:5]), last_of(LONG[:2]))
    bench.tick_until_idle()
    found = [{number: slot for number, (slot, _, _) in rows_in(one).items()} for one in records_of(bench)]
    assert found == [{1: 0, 2: 1}] * 2 + [{2: 1, 3: 0}] * 2 + [{2: 1}]


def test_generation_keeps_its_slot_and_number_from_prefill_to_decode() -> None:
    bench = Bench(slots=2, chunk=2)
    bench.group.start_recording()
    bench.run(generation_of(LONG[:4], 3))
    assert {(number, slot) for one in records_of(bench) for number, (slot, _, _) in rows_in(one).items()} == {
        (1, 0)
    }


def test_suspended_row_gives_its_slot_up_and_keeps_its_number() -> None:
    """A reader who is slow has its row suspended; another takes the slot meanwhile."""
    bench = Bench(slots=2, chunk=4)
    bench.group.start_recording()
    slow = generation_of(LONG[:1], 4, max_backlog=1)
    bench.run(slow)
    bench.submit(generation_of(LONG[:1], 4), generation_of(LONG[:1], 4))
    bench.tick()
    reader_of(slow).take()
    bench.tick_until_idle()
    found = [{number: slot for number, (slot, _, _) in rows_in(one).items()} for one in records_of(bench)]
    assert found[:3] == [{1: 0}, {1: 0}, {2: 0, 3: 1}]
    assert found[-1] == {1: 0}


def test_waiting_rows_are_told_with_each_tick() -> None:
    bench = Bench(slots=1, chunk=8)
    bench.group.start_recording()
    bench.run(last_of(LONG[:2]), last_of(LONG[:2]), last_of(LONG[:2]))
    assert [one.waiting for one in records_of(bench)] == [2, 1, 0]


def test_tick_that_fails_is_not_recorded() -> None:
    bench = Bench(cell=FakeCell(failures=[0]))
    bench.group.start_recording()
    bench.run(last_of(LONG[:2]))
    bench.run(last_of(LONG[:2]))
    assert [rows_in(one) for one in records_of(bench)] == [{2: (0, RowKind.LAST, 2)}]


def test_whole_batches_are_recorded_with_their_padding() -> None:
    bench = WholeBench(slots=2, max_padding=0.5)
    bench.group.start_recording()
    bench.run(*rows_of([5, 4, 5]))
    first, second = records_of(bench)
    assert (first.kind, first.width) == ("whole", 5)
    assert {(slot, steps) for slot, _, steps in rows_in(first).values()} in (
        {(0, 5), (1, 5)},
        {(0, 5), (1, 4)},
    )
    assert sum(one.ran.useful for one in (first, second)) == 14 == bench.metrics.steps["useful"].value
    assert {0} == {slot for slot, _, _ in rows_in(second).values()}


# What a recorder keeps.


def row_left_of(bench: Bench, *, is_cancelled: bool) -> "weakref.ref[Any]":
    """Run a row to its end, or cancel it while it holds a slot; return a reference to its input."""
    row: Row = last_of(LONG)
    kept = weakref.ref(row.request.inputs)
    bench.submit(row)
    bench.tick()
    if is_cancelled:
        bench.cancel(row)
    bench.tick_until_idle()
    reader_of(row).row = None
    return kept


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["finished", "cancelled"])
def test_idle_engine_that_is_watched_keeps_no_row(is_cancelled: bool) -> None:
    bench = Bench(slots=2, chunk=4)
    bench.group.start_recording()
    kept = row_left_of(bench, is_cancelled=is_cancelled)
    bench.posts.clear()
    assert len(records_of(bench)) > 0
    assert kept() is None


def test_failed_engine_that_is_watched_keeps_no_row() -> None:
    bench = Bench()
    bench.group.start_recording()
    bench.submit(last_of(LONG))
    bench.tick()
    bench.run_until_fault()
    recorder = bench.engine.recorder
    assert recorder is not None
    assert recorder._seats == {}


def test_whole_engine_that_fails_a_batch_keeps_no_row() -> None:
    bench = WholeBench(cell=FakeWholeCell(failures=[0]))
    bench.group.start_recording()
    bench.run(*rows_of([3, 3]))
    assert bench.engine.recorder is not None
    assert bench.engine.recorder._seats == {}
    assert records_of(bench) == []
