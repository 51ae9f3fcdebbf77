"""How throughput depends on the number of slots, and on the length of sequences."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import loads
from benchmarks.inprocess import classify, engine_limits, engine_of, runtime_of
from benchmarks.rounds import Sample, timed
from benchmarks.untrained import MIXED
from benchmarks.workshop import Contest, Row, Workshop

SLOTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LENGTHS = (10, 30, 100, 300, 1000, 3000, 10_000)
LEAST_STEPS = 40_000
WARM_UP = 64
# Enough that every slot stays taken at any length.
LEAST_SEQUENCES = 64


@contextmanager
def _slots(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    runtime = runtime_of(model)
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(500, 200)), loads.WORDS)

    def at(slots: int) -> Callable[[], Sample]:
        driven = engine_of(model, runtime, engine_limits(model, runtime, slots))
        classify(driven, inputs[:WARM_UP])
        return workshop.alone(lambda: timed(lambda: len(classify(driven, inputs))))

    load = f"{len(inputs):,} sequences, lognormal lengths, engine in process, by number of slots"
    yield Contest({str(slots): at(slots) for slots in SLOTS}, load=load)


@contextmanager
def _lengths(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    driven = engine_of(model, runtime_of(model))
    classify(driven, loads.token_arrays(loads.mixed_lengths(WARM_UP), loads.WORDS))

    def at(length: int) -> Callable[[], Sample]:
        count = max(LEAST_SEQUENCES, workshop.size(LEAST_STEPS, LEAST_STEPS // 10) // length)
        inputs = loads.token_arrays(np.full(count, length), loads.WORDS)
        return workshop.alone(lambda: timed(lambda: length * len(classify(driven, inputs))))

    lengths = LENGTHS[:5] if workshop.is_quick else LENGTHS
    load = (
        f"at least {LEAST_SEQUENCES} sequences and {LEAST_STEPS:,} steps, "
        "engine in process, by length of all sequences"
    )
    yield Contest({str(length): at(length) for length in lengths}, load=load)


ROWS = (
    Row("slots", "throughput against slots", "sequences/s", _slots, most_rounds=3),
    Row("lengths", "throughput against sequence length", "steps/s", _lengths, most_rounds=2),
)
