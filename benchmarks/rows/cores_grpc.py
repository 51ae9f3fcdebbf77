"""P9: a server with two cores against one with one, texts of mixed lengths through gRPC."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks import loads
from benchmarks.inprocess import classify, engine_of, runtime_of
from benchmarks.rounds import Sample, ratio
from benchmarks.rows.classification_grpc import (
    STREAMS,
    TEXTS_IN_FLIGHT,
    check_labels,
    requests_of,
    saturate,
)
from benchmarks.servers import Server, serve
from benchmarks.untrained import LABELS, MIXED
from benchmarks.workshop import Contest, Row, Skipped, Workshop

TEXTS_A_MESSAGE = 16
ONE, TWO = "one core", "two cores"


@contextmanager
def _two_cores(workshop: Workshop) -> Iterator[Contest]:
    if workshop.cores.are_shared:
        raise Skipped("there is one core")
    model = workshop.model(MIXED)
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(2000, 300)), loads.WORDS)
    messages = requests_of(model, loads.texts_of(inputs, loads.vocabulary()), TEXTS_A_MESSAGE)
    expected = np.array([output.argmax() for output in classify(engine_of(model, runtime_of(model)), inputs)])

    def texts_through(server: Server) -> Callable[[], Sample]:
        window = TEXTS_IN_FLIGHT // TEXTS_A_MESSAGE
        return lambda: without_cpu(
            saturate(
                workshop, server, messages, window, lambda answers: check_labels(answers, expected, LABELS)
            )
        )

    with (
        serve(model.repository, workshop.cores.server) as one,
        serve(model.repository, workshop.cores.both) as two,
    ):
        contestants = {ONE: texts_through(one), TWO: texts_through(two)}
        for warm_up in contestants.values():
            warm_up()
        load = (
            f"{len(inputs):,} texts, {STREAMS} ClassifyStreams on one connection, "
            f"each with {TEXTS_IN_FLIGHT} texts in flight, {TEXTS_A_MESSAGE} a message; "
            "the load generator shares the second core"
        )
        yield Contest(contestants, [ratio(f"{TWO} / {ONE}", TWO, ONE, 1.7)], load)


def without_cpu(made: Sample) -> Sample:
    """Return a sample that is judged by wall time alone: two cores use two seconds of CPU time a second."""
    return Sample(made.value, None, made.notes)


ROWS = (Row("P9", "two cores against one, texts through gRPC", "sequences/s", _two_cores),)
