"""W2: the network of W1 through gRPC, against the same engine in process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import client, loads
from benchmarks.models import Model, read_model
from benchmarks.rounds import Sample, ratio, timed
from benchmarks.rows.whole import (
    LAYER,
    NUM_LAYERS,
    NUM_WAITING,
    SIZES,
    TOLERANCE,
    Answers,
    Inputs,
    Waiting,
    features_of,
    untrained,
)
from benchmarks.servers import Server, serve
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import sequences_pb2 as pb
from service.contract.sequences import OutputSpec, SequencesSpec
from service.runtime import WholeRuntime
from training.export.card import CardFacts
from training.export.export import provenance
from training.export.sequences.compare import Example
from training.export.sequences.export import SequencePackage, export_sequences

METHOD = "/seqserve.v1.Sequences/Infer"
NAME = "whole"
SEVERAL = 8  # sequences of a call where it has several
IN_PROCESS, ALONE, TOGETHER = (
    "engine in process",
    "Sequences.Infer, one sequence a call",
    f"Sequences.Infer, {SEVERAL} sequences a call",
)


def export_whole(repository: Path) -> Model:
    """Export an untrained bidirectional network, pooled by its last hidden states."""
    section = SequencesSpec(output=OutputSpec(kind="numbers", steps="last"))
    examples = [Example(torch.randn(length, SIZES.features)) for length in (1, 5, 12)]
    made = provenance("none: untrained", "none needed", "0" * 64, 0)
    card = CardFacts("Measuring speed.", "None.", "None.", "Untrained.")
    package = SequencePackage(NAME, untrained(), section, examples, {"held_out_loss": 0.0}, made, card)
    return read_model(export_sequences(package, repository))


def requests_of(inputs: Inputs, count: int) -> list[bytes]:
    """Requests of so many sequences each, in order."""
    return [
        pb.InferRequest(
            model=NAME,
            inputs=[
                pb.SequenceInput(steps=pb.StepValues(values=one.ravel()))
                for one in inputs[start : start + count]
            ],
        ).SerializeToString()
        for start in range(0, len(inputs), count)
    ]


def outputs_of(answers: Sequence[bytes]) -> NDArray[np.float32]:
    """The outputs of all sequences, float32 (N, V)."""
    found = [output.values for one in answers for output in pb.InferResponse.FromString(one).outputs]
    return np.array(found, np.float32)


def called(
    workshop: Workshop, server: Server, inputs: Inputs, count: int, expected: Answers
) -> Callable[[], Sample]:
    """Sequences a second with as many in flight as wait for the engine in process."""
    requests = requests_of(inputs, count)

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.closed_loop(channel, METHOD, requests, NUM_WAITING // count)
            usage.stop()
        np.testing.assert_allclose(outputs_of(answers), expected, atol=TOLERANCE)
        return usage.sample(len(inputs))

    return lambda: workshop.run(work())


@contextmanager
def _whole_grpc(workshop: Workshop) -> Iterator[Contest]:
    lengths = loads.mixed_lengths(workshop.size(1000, 200))
    inputs = features_of(lengths)
    with TemporaryDirectory(prefix="seqserve-whole-") as folder:
        model = export_whole(Path(folder))
        waiting = Waiting(WholeRuntime(model.graph().read_bytes(), "cpu", 1))
        expected = waiting.run(inputs)
        with serve(model.repository, workshop.cores.server) as server:
            contestants = {
                IN_PROCESS: workshop.alone(lambda: timed(lambda: len(waiting.run(inputs)))),
                ALONE: called(workshop, server, inputs, 1, expected),
                TOGETHER: called(workshop, server, inputs, SEVERAL, expected),
            }
            for warm_up in contestants.values():
                warm_up()
            claims = [
                ratio("one sequence a call / in process", ALONE, IN_PROCESS, 0.75),
                ratio(f"{SEVERAL} sequences a call / in process", TOGETHER, IN_PROCESS),
            ]
            load = (
                f"{len(inputs):,} sequences, lognormal lengths, mean {lengths.mean():.0f}, "
                f"{NUM_WAITING} in flight; bidirectional LSTM {NUM_LAYERS} x {LAYER.width}, "
                f"{SIZES.features} features, one thread on one core"
            )
            yield Contest(contestants, claims, load)


ROWS = (Row("W2", "whole sequences through gRPC", "sequences/s", _whole_grpc),)
