"""S12: one more step into open sequences of an InferStream, against the network called a step at a time."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from benchmarks import client
from benchmarks.baselines import echo_server
from benchmarks.models import Model, read_model
from benchmarks.rounds import Sample, ratio, timed
from benchmarks.servers import Server, serve, serve_echo
from benchmarks.workshop import Contest, Row, Workshop
from seqserve.v1 import sequences_pb2 as pb
from service.contract import spec
from service.contract.sequences import OutputSpec, SequencesSpec
from training.export.card import CardFacts
from training.export.export import provenance
from training.export.sequences.compare import Example
from training.export.sequences.export import SequencePackage, export_sequences
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

METHOD = "/seqserve.v1.Sequences/InferStream"
NAME = "steps"
FEATURES, HIDDEN, OUTPUTS = 64, 128, 4
SEQUENCES = 64
LONG = 8  # steps of a message where several come at a time
OURS, MORE, BARE = (
    "InferStream, one step a message",
    f"InferStream, {LONG} steps a message",
    "bare onnxruntime, batch 1, step by step",
)
ECHO = "echo in a stream, asyncio"
ANSWER_BYTES = 40
EXAMPLE_LENGTHS = (1, 5, 12)
TOLERANCE = 1e-5

Steps = NDArray[np.float32]


def export_steps(repository: Path) -> Model:
    """Export the untrained network: an LSTM over features, with a linear head."""
    torch.manual_seed(0)
    config = SequenceConfig("chunk", (LayerConfig("lstm", HIDDEN),), OUTPUTS, features=FEATURES)
    section = SequencesSpec(output=OutputSpec(kind="numbers", steps="last"))
    examples = [Example(torch.randn(length, FEATURES)) for length in EXAMPLE_LENGTHS]
    made = provenance("none: untrained", "none needed", "0" * 64, 0)
    card = CardFacts("Measuring speed.", "None.", "None.", "Untrained.")
    network = SequenceNetwork(config).eval()
    package = SequencePackage(NAME, network, section, examples, {"held_out_loss": 0.0}, made, card)
    return read_model(export_sequences(package, repository))


class StepByStep:
    """The network in bare onnxruntime, one thread: each step of each sequence is a run of its own."""

    def __init__(self, model: Model) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(str(model.graph()), options, providers=["CPUExecutionProvider"])
        self._pairs = model.state_pairs
        self._names = [spec.OUTPUT, *(after for _, after in self._pairs)]

    def run(self, values: Steps) -> Steps:
        """Run sequences side by side, float32 (S, T, F); return the last outputs, float32 (S, V)."""
        sequences, count, _ = values.shape
        states: list[dict[str, Any]] = [
            {before: np.zeros((1, HIDDEN), np.float32) for before, _ in self._pairs} for _ in range(sequences)
        ]
        lengths, wanted = np.ones(1, np.int32), np.zeros(1, np.int64)
        fixed = {spec.LENGTHS: lengths, spec.WANTED: wanted}
        outputs = np.empty((sequences, OUTPUTS), np.float32)
        for step in range(count):
            for number, state in enumerate(states):
                feeds = {spec.INPUT: values[number : number + 1, step : step + 1], **fixed, **state}
                output, *after = self._session.run(self._names, feeds)
                outputs[number] = output[0]
                for (before, _), tensor in zip(self._pairs, after, strict=True):
                    state[before] = tensor
        return outputs


def messages_of(values: Steps, steps: int) -> list[bytes]:
    """Messages of so many steps, the sequences in turn: the first steps of all, then the next."""
    sequences, count, _ = values.shape
    return [
        pb.InferStreamRequest(
            id=str(number),
            model="" if start else NAME,
            input=pb.SequenceInput(steps=pb.StepValues(values=values[number, start : start + steps].ravel())),
        ).SerializeToString()
        for start in range(0, count, steps)
        for number in range(sequences)
    ]


def last_outputs(answers: Sequence[bytes], steps: int) -> Steps:
    """The outputs of each sequence after so many steps, float32 (S, V)."""
    found: dict[str, list[float]] = {}
    for answer in map(pb.InferStreamResponse.FromString, answers):
        assert answer.HasField("output"), f"an answer is an error: {answer.error.message}"
        if answer.position == steps:
            found[answer.id] = list(answer.output.values)
    return np.array([found[str(number)] for number in range(len(found))], np.float32)


def pushed(
    workshop: Workshop, server: Server, values: Steps, steps: int, expected: Steps
) -> Callable[[], Sample]:
    """Steps a second through one stream of all sequences, an unanswered message of each at most."""
    messages = messages_of(values, steps)

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.stream_windowed(channel, METHOD, messages, 1, len(values))
            usage.stop()
        np.testing.assert_allclose(last_outputs(answers, values.shape[1]), expected, atol=TOLERANCE)
        return usage.sample(values.shape[0] * values.shape[1])

    return lambda: workshop.run(work())


def echoed(workshop: Workshop, server: Server, values: Steps) -> Callable[[], Sample]:
    """Messages a second through one stream of a server that answers bytes with bytes."""
    messages = messages_of(values, 1)

    async def work() -> Sample:
        async with client.connection(server) as channel:
            usage = client.Usage(server)
            answers = await client.stream_windowed(channel, echo_server.STREAM, messages, 1, len(values))
            usage.stop()
        assert len(answers) == len(messages), "expected an answer to each message"
        return usage.sample(len(answers))

    return lambda: workshop.run(work())


@contextmanager
def _stream(workshop: Workshop) -> Iterator[Contest]:
    steps = workshop.size(160, 24)
    generator = np.random.default_rng(0)
    values = generator.normal(size=(SEQUENCES, steps, FEATURES)).astype(np.float32)
    with TemporaryDirectory(prefix="seqserve-steps-") as folder:
        model = export_steps(Path(folder))
        bare = StepByStep(model)
        expected = bare.run(values)
        core = workshop.cores.server
        with serve(model.repository, core) as server, serve_echo("asyncio", ANSWER_BYTES, core) as echo:
            contestants = {
                OURS: pushed(workshop, server, values, 1, expected),
                MORE: pushed(workshop, server, values, LONG, expected),
                ECHO: echoed(workshop, echo, values),
                BARE: workshop.alone(lambda: timed(lambda: len(bare.run(values)) * steps)),
            }
            for warm_up in contestants.values():
                warm_up()
            claims = [
                ratio("InferStream, one step a message / batch 1, step by step", OURS, BARE, 2.0),
                ratio("InferStream / echo in streams on asyncio", OURS, ECHO),
                ratio(f"InferStream, {LONG} steps a message / batch 1, step by step", MORE, BARE),
            ]
            load = (
                f"{SEQUENCES} sequences of {steps} steps in one stream, at most one unanswered message of "
                f"each; LSTM 1 x {HIDDEN}, {FEATURES} features, {OUTPUTS} outputs, one thread on one core"
            )
            yield Contest(contestants, claims, load)


ROWS = (Row("S12", "one more step into 64 open sequences", "steps/s", _stream),)
