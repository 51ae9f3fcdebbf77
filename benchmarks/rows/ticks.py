"""What a tick costs beside onnxruntime: an engine whose cell computes nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np

from benchmarks.baselines.sampler import Sampler
from benchmarks.inprocess import Driven, drive, row_of
from benchmarks.rounds import Sample
from benchmarks.workshop import Contest, Row, Workshop
from service.engine.cell import Shape
from service.engine.limits import Limits
from service.engine.request import Goal, Request
from service.engine.request import Row as InFlight
from service.engine.sampling import Sampling
from service.runtime import Chunk
from service.settings import Settings

ROWS_OF_A_TICK = (1, 8, 64, 256)
VOCABULARY = 64
CHUNK = 4
WIDTHS = (256, 256)


class NullBound:
    """A chunk that is never computed."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk

    def want(self, wanted: object, output: object) -> None:
        """Nothing is computed, so nothing is asked for."""

    def run(self) -> None:
        """Do nothing: outputs stay what they were."""


class NullCell:
    """A runtime that computes nothing."""

    def bind(self, chunk: Chunk) -> NullBound:
        """Keep the arrays."""
        chunk.output[:] = 0
        return NullBound(chunk)


def idle_engine(rows: int) -> Driven:
    """An engine over that cell."""
    interval_s = Settings.model_fields["stream_interval_ms"].default / 1000
    limits = Limits(rows, CHUNK, write_interval_s=interval_s)
    return drive("null", NullCell(), Shape(None, VOCABULARY, WIDTHS), limits)


def _sequences(rows: int, goal: Goal, length: int, max_tokens: int = 0) -> list[InFlight]:
    inputs = np.zeros(length, np.int64)
    return [row_of(Request(inputs, goal, Sampling(seed=row), max_tokens)) for row in range(rows)]


def _steady(sequences: list[InFlight], rows: int, ticks: int) -> Sample:
    """Return the microseconds a tick while no row comes or goes."""
    driven = idle_engine(rows)
    driven.group.submit(sequences)
    driven.engine.run_turn()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(ticks):
        driven.engine.run_turn()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert not any(sequence.is_over for sequence in sequences), "sequences ended while ticks were timed"
    return Sample(1e6 * seconds / ticks, 1e6 * cpu / ticks)


def chunk_ticks(rows: int, ticks: int) -> Sample:
    """Rows with much input left."""
    return _steady(_sequences(rows, Goal.LAST, (ticks + 2) * CHUNK), rows, ticks)


def step_ticks(rows: int, ticks: int) -> Sample:
    """Rows that generate; what the sampler alone takes is noted."""
    made = _steady(_sequences(rows, Goal.GENERATE, 1, ticks + 2), rows, ticks)
    return Sample(made.value, made.by_cpu, {"of which sampling us": sampling_only(rows, ticks)})


def sampling_only(rows: int, ticks: int) -> float:
    """Microseconds a call of the sampler, which the bare loop pays for as well."""
    sample, logits, positions = (
        Sampler(rows, VOCABULARY),
        np.zeros((rows, VOCABULARY), np.float32),
        np.ones(rows, np.uint64),
    )
    started = time.perf_counter()
    for _ in range(ticks):
        sample(logits, positions)
    return 1e6 * (time.perf_counter() - started) / ticks


def turnover(rows: int, ticks: int) -> Sample:
    """Rows of one step each, so that everybody comes and goes in each tick; what one of them takes is
    noted.
    """
    driven = idle_engine(rows)
    total = rows * ticks
    sequences = _sequences(total, Goal.LAST, 1)
    started, cpu = time.perf_counter(), time.process_time()
    driven.group.submit(sequences)
    ran = next(index for index in count() if not driven.engine.run_turn().is_busy)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert all(sequence.is_over for sequence in sequences), "sequences were left over"
    return Sample(1e6 * seconds / ran, 1e6 * cpu / ran, {"a sequence us": 1e6 * seconds / total})


@contextmanager
def _overhead(workshop: Workshop) -> Iterator[Contest]:
    kinds: dict[str, Callable[[int, int], Sample]] = {
        "chunk": chunk_ticks,
        "step": step_ticks,
        "turnover": turnover,
    }
    ticks = workshop.size(1000, 100)

    def run(measure: Callable[[int, int], Sample], rows: int) -> Callable[[], Sample]:
        return workshop.alone(lambda: measure(rows, ticks if rows < max(ROWS_OF_A_TICK) else ticks // 4))

    for measure in kinds.values():
        measure(1, 10)
    made = {
        f"{kind}, {rows} rows": run(measure, rows)
        for kind, measure in kinds.items()
        for rows in ROWS_OF_A_TICK
    }
    load = (
        f"a cell that computes nothing; {ticks} ticks; vocabulary {VOCABULARY}, "
        f"state {WIDTHS}; turnover: all rows come and go in each tick"
    )
    yield Contest(made, load=load)


ROWS = (Row("ticks", "a tick's own overhead", "us a tick", _overhead),)
