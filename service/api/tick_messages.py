"""Converts what the engines of a version have run to messages of a watch."""

from collections.abc import Sequence
from dataclasses import dataclass

from seqserve.v1 import models_pb2 as pb
from service.engine.ticks import Ring, RowKind, TickRecord
from service.observability.metrics import EngineMetrics

# Seconds between two conversions of a version's ticks, whoever reads them.
CONVERT_S = 0.05
# Rows that may be converted in a second, which takes 2.5 % of the time of the event loop, and at once. A tick
# costs as much as so many rows besides.
COST_PER_S, MAX_COST, TICK_COST = 100_000, 20_000, 20

_TICK_KINDS = {"chunk": pb.TICK_KIND_CHUNK, "step": pb.TICK_KIND_STEP, "whole": pb.TICK_KIND_WHOLE}
_ROW_KINDS = {
    RowKind.PREFILL: pb.ROW_KIND_PREFILL,
    RowKind.DECODE: pb.ROW_KIND_DECODE,
    RowKind.LAST: pb.ROW_KIND_LAST,
    RowKind.EVERY: pb.ROW_KIND_EVERY,
    RowKind.SCORE: pb.ROW_KIND_SCORE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """A version that is watched, without a reference to anything that keeps it in memory.

    Attributes:
        name: name of the model.
        version: its version.
        slots: slots of each engine.
        counts: what its engines and its task count.
        rings: ticks of each engine.
    """

    name: str
    version: int
    slots: tuple[int, ...]
    counts: tuple[EngineMetrics, ...]
    rings: tuple[Ring[TickRecord], ...]


class TickMessages:
    """Converts the ticks of a version's engines once for all of its watches.

    Args:
        watched: what is watched.
        now: monotonic seconds, from which the times of messages count.

    Attributes:
        began: `now`.
        rings: converted ticks of each engine.
        num_dropped: ticks that were not converted, since they came too fast.
    """

    def __init__(self, watched: Watched, now: float) -> None:
        self.began = now
        self.rings = tuple(Ring[pb.EngineTick]() for _ in watched.rings)
        self.num_dropped = 0
        self._sources = watched.rings
        self._positions = [ring.end for ring in watched.rings]
        self._converted_at = now

    def convert(self, now: float) -> None:
        """Convert what has been recorded since the last time, unless that was a moment ago."""
        elapsed_s = now - self._converted_at
        if elapsed_s < CONVERT_S:
            return
        self._converted_at = now
        max_cost = int(min(MAX_COST, COST_PER_S * elapsed_s)) // len(self._sources)
        for engine, source in enumerate(self._sources):
            records, num_lost, self._positions[engine] = source.read(self._positions[engine])
            kept = _newest(records, max_cost)
            self.num_dropped += num_lost + len(records) - len(kept)
            for record in kept:
                self.rings[engine].add(_tick(engine, record, self.began))


class Feed:
    """Makes the messages of one watch, each of what has come since the one before.

    Args:
        watched: what is watched.
        messages: its ticks, converted.
    """

    def __init__(self, watched: Watched, messages: TickMessages) -> None:
        self._watched = watched
        self._messages = messages
        self._positions = [ring.end for ring in messages.rings]
        self._num_dropped = messages.num_dropped

    def read(self, now: float) -> pb.WatchEngineResponse:
        """Return the next message, made at a monotonic time in seconds."""
        watched, messages = self._watched, self._messages
        messages.convert(now)
        message = pb.WatchEngineResponse(
            model=watched.name,
            version=watched.version,
            now_seconds=now - messages.began,
            slots=watched.slots,
            active_sequences=int(sum(one.active_sequences.value for one in watched.counts)),
            waiting_sequences=int(sum(one.waiting_sequences.value for one in watched.counts)),
            dropped_ticks=messages.num_dropped - self._num_dropped,
            counters=_counters(watched.counts),
        )
        self._num_dropped = messages.num_dropped
        for engine, ring in enumerate(messages.rings):
            ticks, num_lost, self._positions[engine] = ring.read(self._positions[engine])
            message.dropped_ticks += num_lost
            message.ticks.extend(ticks)
        return message


def _newest(records: Sequence[TickRecord], max_cost: int) -> Sequence[TickRecord]:
    """Return the newest records that cost together at most so much, one record at least."""
    cost = 0
    for index in range(len(records) - 1, -1, -1):
        cost += TICK_COST + len(records[index].seats.slots)
        if cost > max_cost:
            return records[min(index + 1, len(records) - 1) :]
    return records


def _tick(engine: int, record: TickRecord, began: float) -> pb.EngineTick:
    seats = record.seats
    return pb.EngineTick(
        engine=engine,
        kind=_TICK_KINDS[record.kind],
        start_seconds=record.started - began,
        duration_seconds=record.ended - record.started,
        steps=record.width,
        waiting_sequences=record.waiting,
        row_slots=seats.slots,
        row_sequences=seats.numbers,
        row_kinds=map(_ROW_KINDS.__getitem__, seats.kinds),
        row_steps=record.row_steps,
    )


def _counters(counts: Sequence[EngineMetrics]) -> pb.EngineCounters:
    """Sum what the engines of a version have counted."""
    return pb.EngineCounters(
        ticks=sum(sum(each.counts) for one in counts for each in one.tick_seconds.values()),
        rows=sum(one.batch_rows.sum for one in counts),
        useful_steps=sum(one.steps["useful"].value for one in counts),
        padded_steps=sum(one.steps["padded"].value for one in counts),
        tokens_generated=sum(one.tokens_generated.value for one in counts),
        first_tokens=sum(sum(one.first_token_seconds.counts) for one in counts),
        time_to_first_token_seconds=sum(one.first_token_seconds.sum for one in counts),
        admitted=sum(sum(one.queue_seconds.counts) for one in counts),
        queue_seconds=sum(one.queue_seconds.sum for one in counts),
        cancelled=sum(one.cancelled.value for one in counts),
        paused=sum(one.paused.value for one in counts),
        prompt_cache_hits=sum(one.prompt_cache_hits.value for one in counts),
    )
