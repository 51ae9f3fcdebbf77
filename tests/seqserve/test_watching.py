"""seqserve.watching: messages become results, and a watch goes on after a failed call."""

import pytest

from seqserve import RowKind, TickKind, TickRow
from seqserve.errors import ServerFailure, Unavailable, WrongType
from seqserve.link import Link
from seqserve.retry import Attempts, Retry
from seqserve.v1 import models_pb2 as models
from seqserve.watching import EngineWatchCore, engine_ticks, watch_request

TICK = models.EngineTick(
    engine=1,
    kind=models.TICK_KIND_CHUNK,
    start_seconds=0.25,
    duration_seconds=0.5,
    steps=4,
    waiting_sequences=2,
    row_slots=[0, 3],
    row_sequences=[7, 9],
    row_kinds=[models.ROW_KIND_PREFILL, models.ROW_KIND_LAST],
    row_steps=[4, 1],
)


def message(now_seconds: float = 1.0, *ticks: models.EngineTick) -> models.WatchEngineResponse:
    counters = models.EngineCounters(useful_steps=5, time_to_first_token_seconds=0.75)
    return models.WatchEngineResponse(
        model="letters", version=3, now_seconds=now_seconds, slots=[8, 8], ticks=ticks, counters=counters
    )


def core() -> EngineWatchCore:
    attempts = Attempts(Retry(), None, draw=lambda: 0.5)
    return EngineWatchCore(Link("127.0.0.1:1", (), lambda: False), attempts)


def test_message_becomes_ticks_with_their_rows() -> None:
    found = engine_ticks(message(1.0, TICK))
    assert (found.model, found.version, found.now_s, found.slots) == ("letters", 3, 1.0, (8, 8))
    [tick] = found.ticks
    assert (tick.engine, tick.kind, tick.start_s, tick.duration_s) == (1, TickKind.CHUNK, 0.25, 0.5)
    assert tick.rows == (TickRow(0, 7, RowKind.PREFILL, 4), TickRow(3, 9, RowKind.LAST, 1))
    assert (tick.useful_steps, tick.padded_steps, tick.waiting_sequences) == (5, 3, 2)
    assert (found.counters.useful_steps, found.counters.time_to_first_token_s) == (5, 0.75)


def test_kinds_of_a_newer_server_are_unknown() -> None:
    newer = models.EngineTick(kind=9, row_slots=[0], row_sequences=[1], row_kinds=[9], row_steps=[1])  # type: ignore[arg-type, list-item]
    [tick] = engine_ticks(message(1.0, newer)).ticks
    assert (tick.kind, tick.rows[0].kind) == (TickKind.UNKNOWN, RowKind.UNKNOWN)


def test_clock_goes_on_in_the_call_after_a_failed_one() -> None:
    watch = core()
    assert watch._receive(message(5.0)).now_s == 0.0
    assert watch._receive(message(8.0, TICK)).now_s == 3.0
    delay_s = watch._retry_delay_s(Unavailable("gone"))
    assert delay_s is not None
    later = watch._receive(message(100.5, TICK))
    assert later.now_s == pytest.approx(3.0 + delay_s)
    assert later.ticks[0].start_s == pytest.approx(later.now_s - 100.25)


def test_watch_that_the_server_ends_without_an_error_is_a_failure() -> None:
    with pytest.raises(ServerFailure, match="ended the watch"):
        core()._check_end()


def test_request_names_the_argument_that_is_wrong() -> None:
    assert watch_request("letters", 2) == models.WatchEngineRequest(model="letters", version=2)
    with pytest.raises(WrongType, match="model"):
        watch_request(3, 0)  # type: ignore[arg-type]
