"""W1: a bidirectional network on sequences of mixed lengths, in process: whole batches and other ways."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from benchmarks import loads
from benchmarks.baselines.padded import padded_share
from benchmarks.inprocess import MAX_WAITING, row_of
from benchmarks.rounds import Sample, ratio, timed
from benchmarks.workshop import Contest, Row, Workshop
from service.contract import spec
from service.engine.cell import Shape
from service.engine.group import EngineGroup
from service.engine.request import Goal, Request
from service.engine.whole import WholeEngine
from service.models.tuning import Wish
from service.models.whole_tuning import tune_whole
from service.observability.metrics import Metrics
from service.runtime import WholeRuntime
from training.export.sequences.graphs import whole_graph
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

LAYER, NUM_LAYERS = LayerConfig("lstm", 128, "both"), 2
SIZES = SequenceConfig("whole", (LAYER,) * NUM_LAYERS, outputs=8, features=64, pooling="last")
NUM_WAITING = 64
FIFO_ROWS = 32
ENGINE = "engine"
FIFO, ONE, SORTED = (
    "bare onnxruntime, arrival order, padded batches of 32",
    "bare onnxruntime, one by one",
    "bare onnxruntime, all sorted beforehand, batches of 32",
)
TOLERANCE = 1e-5

Inputs = Sequence[NDArray[np.float32]]
Answers = NDArray[np.float32]


def untrained() -> SequenceNetwork:
    """Return the network with random weights."""
    torch.manual_seed(0)
    return SequenceNetwork(SIZES).eval()


class Graph:
    """The network in bare onnxruntime, one thread."""

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # faster: shapes vary
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, batch: Inputs) -> Answers:
        """Run sequences padded to the longest; return float32 (B, outputs)."""
        lengths = np.fromiter(map(len, batch), np.int32, len(batch))
        padded = np.zeros((len(batch), int(lengths.max()), SIZES.features), np.float32)
        for row, one in enumerate(batch):
            padded[row, : len(one)] = one
        found: Answers = self._session.run([spec.OUTPUT], {spec.INPUT: padded, spec.LENGTHS: lengths})[0]
        return found

    def in_order(self, inputs: Inputs, rows: int) -> Answers:
        """Run sequences in the order of arrival, so many at a time."""
        return np.concatenate(
            [self.run(inputs[start : start + rows]) for start in range(0, len(inputs), rows)]
        )

    def by_length(self, inputs: Inputs, rows: int) -> Answers:
        """Run sequences sorted by length, as nobody can who does not know the future."""
        order = np.argsort([len(one) for one in inputs], kind="stable")
        answers = self.in_order([inputs[index] for index in order], rows)
        return answers[np.argsort(order)]


class Waiting:
    """Our engine, driven by hand, with so many sequences waiting until none are left to submit."""

    def __init__(self, runtime: WholeRuntime) -> None:
        shape = Shape(SIZES.features, SIZES.outputs, ())
        limits = tune_whole(runtime, shape, Wish()).limits(0.0, 0)
        metrics = Metrics(CollectorRegistry()).for_model("whole")
        self.engine = WholeEngine("whole", runtime, shape, limits, metrics)
        self.metrics = metrics
        self._group = EngineGroup([self.engine], MAX_WAITING)

    def run(self, inputs: Inputs) -> Answers:
        """Run sequences; return float32 (N, outputs) in their order."""
        rows = [row_of(Request(one, Goal.LAST)) for one in inputs]
        outputs: dict[int, Answers] = {}
        self._group.submit(rows[:NUM_WAITING])
        submitted = NUM_WAITING
        while len(outputs) < len(rows):
            turn = self.engine.run_turn()
            outputs.update((id(row), output) for row, output in turn.outputs)
            if arrived := rows[submitted : submitted + len(turn.outputs)]:
                submitted += len(arrived)
                self._group.submit(arrived)
        return np.stack([outputs[id(row)] for row in rows])


def features_of(lengths: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Return random features of sequences of these lengths."""
    generator = np.random.default_rng(loads.SEED)
    return [generator.normal(size=(length, SIZES.features)).astype(np.float32) for length in lengths]


@contextmanager
def _whole(workshop: Workshop) -> Iterator[Contest]:
    graph_bytes: bytes = whole_graph(untrained()).SerializeToString()
    graph, waiting = Graph(graph_bytes), Waiting(WholeRuntime(graph_bytes, "cpu", 1))
    lengths = loads.mixed_lengths(workshop.size(1000, 200))
    inputs = features_of(lengths)
    ways: dict[str, Callable[[Inputs], Answers]] = {
        ENGINE: waiting.run,
        FIFO: lambda some: graph.in_order(some, FIFO_ROWS),
        ONE: lambda some: graph.in_order(some, 1),
        SORTED: lambda some: graph.by_length(some, FIFO_ROWS),
    }
    answers = ways[ENGINE](inputs)
    for name, way in ways.items():
        np.testing.assert_allclose(way(inputs), answers, atol=TOLERANCE, err_msg=name)

    def run(way: Callable[[Inputs], Answers]) -> Callable[[], Sample]:
        return workshop.alone(lambda: timed(lambda: len(way(inputs))))

    steps, limits = waiting.metrics.steps, waiting.engine.limits
    padded, useful = steps["padded"].value, steps["useful"].value
    load = (
        f"{len(inputs):,} sequences, lognormal lengths, mean {lengths.mean():.0f}, longest {lengths.max()}, "
        f"{NUM_WAITING} waiting; bidirectional LSTM {NUM_LAYERS} x {LAYER.width}, one thread on one core; "
        f"engine with batches of at most {limits.chunk_rows} rows and {limits.chunk_steps:,} steps; "
        f"arrival order computes {padded_share(lengths, FIFO_ROWS):.2f} steps for one"
    )
    claims = [
        ratio("engine / arrival-order padded batches of 32", ENGINE, FIFO, 4.0),
        ratio("engine / one by one", ENGINE, ONE, 1.4),
        ratio("engine / all sorted beforehand", ENGINE, SORTED),
    ]
    facts = {"padding of the engine's batches %": 100 * padded / (padded + useful)}
    yield Contest({name: run(way) for name, way in ways.items()}, claims, load, facts)


ROWS = (Row("W1", "whole sequences, bidirectional, mixed lengths, in process", "sequences/s", _whole),)
