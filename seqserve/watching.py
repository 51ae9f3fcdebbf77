"""Watches of a version's engines, in the blocking client; `seqserve.aio_watching` is the asyncio one."""

from collections.abc import Callable
from typing import Final

from seqserve import arguments
from seqserve.calls import Stream
from seqserve.engine_results import EngineCounters, EngineTick, EngineTicks, RowKind, TickKind, TickRow
from seqserve.errors import SeqserveError, ServerFailure
from seqserve.infer import InferCalls
from seqserve.kept_calls import StreamCall
from seqserve.link import Link
from seqserve.retry import Attempts
from seqserve.streams import StreamCore
from seqserve.v1 import models_pb2 as models

_TICK_KINDS: Final = {
    models.TICK_KIND_CHUNK: TickKind.CHUNK,
    models.TICK_KIND_STEP: TickKind.STEP,
    models.TICK_KIND_WHOLE: TickKind.WHOLE,
}
_ROW_KINDS: Final = {
    models.ROW_KIND_PREFILL: RowKind.PREFILL,
    models.ROW_KIND_DECODE: RowKind.DECODE,
    models.ROW_KIND_LAST: RowKind.LAST,
    models.ROW_KIND_EVERY: RowKind.EVERY,
    models.ROW_KIND_SCORE: RowKind.SCORE,
}


def watch_request(model: str, version: int) -> models.WatchEngineRequest:
    """Build a request to watch the engines of a version."""
    return models.WatchEngineRequest(
        model=arguments.text("model", model), version=arguments.count("version", version)
    )


def engine_ticks(response: models.WatchEngineResponse, began_s: float = 0.0) -> EngineTicks:
    """Convert one message of a watch; `began_s` is added to its times."""
    return EngineTicks(
        model=response.model,
        version=response.version,
        now_s=began_s + response.now_seconds,
        slots=tuple(response.slots),
        ticks=tuple(_tick(tick, began_s) for tick in response.ticks),
        dropped_ticks=response.dropped_ticks,
        active_sequences=response.active_sequences,
        waiting_sequences=response.waiting_sequences,
        counters=_counters(response.counters),
    )


def _tick(tick: models.EngineTick, began_s: float) -> EngineTick:
    kinds = [_ROW_KINDS.get(kind, RowKind.UNKNOWN) for kind in tick.row_kinds]
    each = zip(tick.row_slots, tick.row_sequences, kinds, tick.row_steps, strict=True)
    return EngineTick(
        engine=tick.engine,
        kind=_TICK_KINDS.get(tick.kind, TickKind.UNKNOWN),
        start_s=began_s + tick.start_seconds,
        duration_s=tick.duration_seconds,
        steps=tick.steps,
        waiting_sequences=tick.waiting_sequences,
        rows=tuple(map(TickRow._make, each)),
    )


def _counters(counters: models.EngineCounters) -> EngineCounters:
    return EngineCounters(
        ticks=int(counters.ticks),
        rows=int(counters.rows),
        useful_steps=int(counters.useful_steps),
        padded_steps=int(counters.padded_steps),
        tokens_generated=int(counters.tokens_generated),
        first_tokens=int(counters.first_tokens),
        time_to_first_token_s=counters.time_to_first_token_seconds,
        admitted=int(counters.admitted),
        queue_s=counters.queue_seconds,
        cancelled=int(counters.cancelled),
        paused=int(counters.paused),
        prompt_cache_hits=int(counters.prompt_cache_hits),
    )


class EngineWatchCore(StreamCore[models.WatchEngineResponse, EngineTicks]):
    """The times of a watch over one call or several: from 0 on, and on from where the last call ended."""

    def __init__(self, link: Link, attempts: Attempts) -> None:
        self._link = link
        self._attempts = attempts
        self._began_s: float | None = None
        self._now_s = 0.0

    def _receive(self, response: models.WatchEngineResponse) -> EngineTicks:
        self._attempts.record_progress()
        if self._began_s is None:  # the first message of a call, whose clock has a zero of its own
            self._began_s = self._now_s - response.now_seconds
        ticks = engine_ticks(response, self._began_s)
        self._now_s = ticks.now_s
        return ticks

    def _retry_delay_s(self, failure: SeqserveError) -> float | None:
        delay_s = self._attempts.next_delay_s(failure)
        self._began_s, self._now_s = None, self._now_s + (delay_s or 0.0)
        return delay_s

    def _check_end(self) -> None:
        raise ServerFailure("the server ended the watch without a reason")


class EngineWatch(EngineWatchCore, Stream[models.WatchEngineResponse, EngineTicks]):
    """A watch of the engines of a version: yields what they have run, until it is closed.

    If the client retries (`seqserve.Retry`), a new call follows a failed one, also when the version ceases to
    serve: of version 0 the next one is watched then. Sequences are numbered anew in each call.
    """

    def __init__(
        self,
        link: Link,
        method: Callable[..., StreamCall[models.WatchEngineResponse]],
        request: models.WatchEngineRequest,
        attempts: Attempts,
    ) -> None:
        EngineWatchCore.__init__(self, link, attempts)
        Stream.__init__(self, lambda: link.call(method, request, timeout=attempts.remaining_s()))


class WatchCalls(InferCalls):
    """Base class of the client: watches of engines."""

    def watch_engine(self, model: str, version: int = 0, *, timeout_s: float | None = None) -> EngineWatch:
        """Watch what the engines of a version run: every tick with its rows, and counts.

        Args:
            model: Name of the model.
            version: Version of the model; 0 means the newest that serves.
            timeout_s: Timeout of the whole watch in seconds; None, the default, means no limit.

        Returns:
            A stream of what has run since the item before, at most ten items a second; one a second while
            nothing runs. A reader that is too slow misses ticks, which `dropped_ticks` counts.
        """
        request = watch_request(model, version)
        return EngineWatch(self._link, self._models.WatchEngine, request, self._attempts(timeout_s))
