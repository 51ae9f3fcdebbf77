"""S9: two cores against one, classification in process: by threads inside an operator, and by engines side by
side.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from benchmarks import loads
from benchmarks.inprocess import Driven, classify, engine_of, runtime_of
from benchmarks.machine import pinned
from benchmarks.rounds import Sample, ratio, timed
from benchmarks.untrained import MIXED
from benchmarks.workshop import Contest, Row, Skipped, Workshop

THREADS = 2
WARM_UP = 128

Inputs = Sequence[NDArray[Any]]


def side_by_side(engines: Sequence[Driven], inputs: Inputs) -> int:
    """Deal sequences out to engines, each in a thread of its own; how many were classified."""
    done = [0] * len(engines)

    def drive(number: int) -> None:
        done[number] = len(classify(engines[number], inputs[number :: len(engines)]))

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == len(inputs), "an engine's thread broke off"
    return len(inputs)


@contextmanager
def _two_cores(workshop: Workshop) -> Iterator[Contest]:
    if workshop.cores.are_shared:
        raise Skipped("there is one core")
    model = workshop.model(MIXED)
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(2000, 300)), loads.WORDS)
    both = workshop.cores.both
    one = engine_of(model, runtime_of(model))
    with pinned(both):  # onnxruntime's threads are made with the session, and stay where they were made
        wide = engine_of(model, runtime_of(model, threads=THREADS))
    shared = runtime_of(model)
    pair = [engine_of(model, shared) for _ in range(THREADS)]

    for driven in (one, wide, *pair):
        classify(driven, inputs[:WARM_UP])

    def on_both(work: Callable[[], float]) -> Callable[[], Sample]:
        def run() -> Sample:
            with pinned(both):
                made = timed(work)
            return Sample(made.value, None, made.notes)  # two cores use two seconds of CPU time a second

        return run

    contestants = {
        "one core": workshop.alone(lambda: timed(lambda: len(classify(one, inputs)))),
        "(a) 2 threads in onnxruntime, one engine": on_both(lambda: len(classify(wide, inputs))),
        "(b) 2 engines, one session of 1 thread": on_both(lambda: side_by_side(pair, inputs)),
    }
    names = list(contestants)
    claims = [ratio(f"{name} / one core", name, names[0], 1.6) for name in names[1:]]
    yield Contest(contestants, claims, f"{len(inputs):,} sequences, lognormal lengths")


ROWS = (Row("S9", "two cores against one, classification in process", "sequences/s", _two_cores),)
