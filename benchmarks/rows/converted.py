"""C1: a time step of a converted network against the same network in a graph that is written by hand."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import loads
from benchmarks.rounds import Sample, ratio, timed
from benchmarks.workshop import Contest, Row, Workshop
from service.contract import spec
from training.convert.graph.weights import with_weights
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.reading import read_onnx
from training.export.graph import build_graph
from training.networks.network import NetworkConfig, RecurrentNetwork

CONVERTED, WRITTEN = "converted", "written by hand"
# The sizes of charlm.
VOCABULARY, EMBEDDING, HIDDEN, LAYERS = 64, 64, 512, 2
ROWS_OF_A_TICK = (1, 16, 64)
TOLERANCE = 1e-6


class Foreign(nn.Module):
    """A network like charlm's as someone else writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
        self.layers = nn.LSTM(EMBEDDING, HIDDEN, LAYERS, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, (B, T, V)."""
        logits: Tensor = self.head(self.layers(self.embedding(tokens))[0])
        return logits


def converted(foreign: Foreign, folder: Path) -> bytes:
    """Export a network with PyTorch's tracing exporter, and convert the file."""
    path, axes = folder / "foreign.onnx", {0: "batch", 1: "time"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            foreign,
            (torch.zeros(1, 5, dtype=torch.int64),),
            str(path),
            dynamo=False,
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_axes={"tokens": axes, "logits": axes},
        )
    made = climb(read_onnx(path, folder), Choices(), folder)
    graph: bytes = with_weights(made.graph, folder).SerializeToString()
    return graph


def written(foreign: Foreign) -> bytes:
    """Return the graph of our own exporter for the same weights."""
    config = NetworkConfig(
        cell="lstm",
        layers=LAYERS,
        hidden=HIDDEN,
        outputs=VOCABULARY,
        vocabulary=VOCABULARY,
        embedding=EMBEDDING,
    )
    network = RecurrentNetwork(config).eval()
    network.load_state_dict(dict(zip(network.state_dict(), foreign.state_dict().values(), strict=True)))
    graph: bytes = build_graph(network).SerializeToString()
    return graph


class Stepping:
    """A chunk cell in bare onnxruntime on one thread: so many rows, one time step a run, states kept."""

    def __init__(self, graph: bytes, rows: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_outputs()]
        self._fixed = {spec.LENGTHS: np.ones(rows, np.int32), spec.WANTED: np.arange(rows, dtype=np.int64)}
        self._states = {
            name.removesuffix(spec.NEXT_SUFFIX): np.zeros((rows, HIDDEN), np.float32)
            for name in self._names[1:]
        }

    def run(self, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run time steps, (steps, rows), one after the other; return the last outputs, (rows, V)."""
        output = np.zeros(0, np.float32)
        for tokens in steps:
            feeds = {spec.INPUT: tokens[:, None], **self._fixed, **self._states}
            output, *after = self._session.run(self._names, feeds)
            self._states = dict(zip(self._states, after, strict=True))
        return output


@contextmanager
def _contest(workshop: Workshop, rows: int) -> Iterator[Contest]:
    torch.manual_seed(0)
    foreign = Foreign().eval()
    with tempfile.TemporaryDirectory() as folder:
        graphs = {CONVERTED: converted(foreign, Path(folder)), WRITTEN: written(foreign)}
    steps = np.random.default_rng(loads.SEED).integers(
        0, VOCABULARY, (workshop.size(6400, 640) // rows, rows)
    )
    ways = {name: Stepping(graph, rows) for name, graph in graphs.items()}
    outputs = [way.run(steps[:20]) for way in ways.values()]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=TOLERANCE)

    def run(way: Stepping) -> Callable[[], Sample]:
        def count() -> int:
            way.run(steps)
            return steps.size

        return workshop.alone(lambda: timed(count))

    load = (
        f"{rows} rows, one time step a run, {len(steps)} runs; LSTM {LAYERS} x {HIDDEN}, "
        f"{VOCABULARY} tokens, one thread on one core"
    )
    # A step may cost 1.1 times as much.
    claims = [ratio("converted / written by hand", CONVERTED, WRITTEN, 1 / 1.1)]
    yield Contest({name: run(way) for name, way in ways.items()}, claims, load)


def _opened(rows: int) -> Callable[[Workshop], AbstractContextManager[Contest]]:
    return lambda workshop: _contest(workshop, rows)


ROWS = tuple(
    Row(f"C1.{rows}", f"a step of a converted network, {rows} rows in a batch", "steps/s", _opened(rows))
    for rows in ROWS_OF_A_TICK
)
