"""S1: classification of texts of mixed lengths, in process: ours and the ways of batching."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import loads
from benchmarks.baselines import padded, torch_packed
from benchmarks.inprocess import Driven, classify, engine_of, runtime_of
from benchmarks.models import Model, shipped
from benchmarks.rounds import Contestants, Sample, ratio, timed
from benchmarks.untrained import MIXED, mixed_network
from benchmarks.workshop import Contest, Row, Workshop
from training.networks.network import RecurrentNetwork

FIFO_ROWS = 32
WARM_UP = 128
ENGINE, FIFO, SORTED_32, SORTED_64 = (
    "engine",
    "FIFO, batches of 32",
    "sorted offline, batches of 32",
    "sorted offline, batches of 64",
)
TORCH = "PyTorch, packed, sorted"
# Batches of other shapes sum in another order.
TOLERANCE = 1e-4

Inputs = Sequence[NDArray[Any]]
Answers = NDArray[np.float32]


def contestants(
    workshop: Workshop, driven: Driven, model: Model, inputs: Inputs, network: RecurrentNetwork | None
) -> Contestants:
    """Every way to classify these inputs, checked to give the same answers."""
    batches = padded.PaddedBatches(model, 64)
    ways: dict[str, Callable[[Inputs], Answers]] = {
        ENGINE: lambda some: np.stack(classify(driven, some)),
        FIFO: lambda some: padded.in_order(batches, some, FIFO_ROWS),
        SORTED_32: lambda some: padded.by_length(batches, some, 32),
        SORTED_64: lambda some: padded.by_length(batches, some, 64),
        "one by one": lambda some: padded.in_order(batches, some, 1),
    }
    if network is not None:
        torch.set_num_threads(1)
        ways[TORCH] = lambda some: torch_packed.classify(network, some)
    answers = ways[ENGINE](inputs)
    for name, way in ways.items():
        np.testing.assert_allclose(way(inputs[:WARM_UP]), answers[:WARM_UP], atol=TOLERANCE, err_msg=name)

    def run(way: Callable[[Inputs], Answers]) -> Callable[[], Sample]:
        def work() -> int:
            return len(way(inputs))

        return workshop.alone(lambda: timed(work))

    return {name: run(way) for name, way in ways.items()}


def _load(driven: Driven, model: Model, inputs: Inputs, what: str) -> str:
    lengths = np.array([len(one) for one in inputs])
    return (
        f"{len(inputs):,} {what}, mean length {lengths.mean():.0f}, longest {lengths.max()}; "
        f"{model.spec.network.words}; one thread on one core; "
        f"{driven.sizes}; FIFO computes {padded.padded_share(lengths, FIFO_ROWS):.2f} steps for one"
    )


@contextmanager
def _mixed(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    driven = engine_of(model, runtime_of(model))
    inputs = loads.token_arrays(loads.mixed_lengths(workshop.size(2000, 300)), loads.WORDS)
    claims = [
        ratio("engine / FIFO batches of 32, padded", ENGINE, FIFO, 4.0),
        ratio("engine / sorted offline, batches of 32", ENGINE, SORTED_32, 1.0),
        ratio("engine / sorted offline, batches of 64", ENGINE, SORTED_64),
        ratio("engine / PyTorch packed", ENGINE, TORCH),
    ]
    yield Contest(
        contestants(workshop, driven, model, inputs, mixed_network()),
        claims,
        _load(driven, model, inputs, "sequences, lognormal lengths"),
    )


@contextmanager
def _reviews(workshop: Workshop) -> Iterator[Contest]:
    model = shipped("sentiment")
    driven = engine_of(model, runtime_of(model))
    inputs = model.encode(loads.review_texts(workshop.size(2000, 300)))
    claims = [
        ratio("engine / FIFO batches of 32, padded", ENGINE, FIFO),
        ratio("engine / sorted offline, batches of 32", ENGINE, SORTED_32),
    ]
    yield Contest(
        contestants(workshop, driven, model, inputs, None),
        claims,
        _load(driven, model, inputs, "movie-review sentences"),
    )


ROWS = (
    Row("S1", "classification, mixed lengths, in process", "sequences/s", _mixed),
    Row("S1r", "classification, real reviews, in process", "sequences/s", _reviews),
)
