"""Tests of service.engine.engine with real onnxruntime on small untrained networks: the same answer in any
company, and the answer that PyTorch gives.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.engine.cell import Shape
from service.engine.request import Goal, Request, Row
from service.engine.sampling import Sampling, log_softmax
from service.runtime import Runtime
from tests import tiny
from tests.service.engine.fakes import (
    Bench,
    Generated,
    assert_same,
    every_of,
    generation_of,
    last_of,
    reader_of,
    received,
    row_of,
    score_of,
)
from training.export.graph import build_graph, reference_outputs
from training.networks.network import Cell, RecurrentNetwork

CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")
INVARIANT: tuple[Cell, ...] = ("lstm", "gru")
SIZE = len(tiny.VOCABULARY)
# Of float32 sums in another order, over the few dozen terms of these networks.
TOLERANCE = 1e-5

Network = tuple[RecurrentNetwork, Runtime, Shape]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Network]:
    folder = tmp_path_factory.mktemp("networks")
    return {cell: load(folder, cell) for cell in CELLS}


def load(folder: Path, cell: Cell) -> Network:
    built = tiny.generator_network(cell)
    path = folder / f"{cell}.onnx"
    path.write_bytes(build_graph(built).SerializeToString())
    names = built.config.state_names
    runtime = Runtime(path, [(name, f"{name}.next") for name in names], "cpu", 1)
    return built, runtime, Shape(None, SIZE, (built.config.hidden,) * len(names))


def tokens_of(seed: int, length: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).integers(0, SIZE, length).tolist()
    return drawn


def crowd() -> list[Row]:
    """Return rows of every goal at many lengths."""
    lengths = (1, 2, 3, 7, 16, 33)
    return [
        *(last_of(tokens_of(length, length)) for length in lengths),
        *(every_of(tokens_of(length + 50, length)) for length in lengths),
        *(score_of(tokens_of(length + 100, length + 1)) for length in lengths),
        *(generation_of(tokens_of(length + 200, length), 5 + length, Sampling(0.0)) for length in lengths),
        *(
            generation_of(tokens_of(length + 300, length), 12, Sampling(0.9, 6, 0.95, length))
            for length in lengths
        ),
    ]


def greedy_crowd() -> list[Row]:
    """Return the rows of a crowd that draw no random numbers."""
    return [row for row in crowd() if row.request.sampling.temperature == 0.0 or row.request.max_tokens == 0]


def bench_of(network: Network, slots: int, chunk: int, **others: Any) -> Bench:
    _, runtime, shape = network
    return Bench(slots, chunk, cell=runtime, shape=shape, **others)


def run_alone(network: Network, rows: list[Row]) -> list[list[Any]]:
    for row in rows:
        bench_of(network, 1, 64).run(row)
    return [received(row) for row in rows]


def all_at_once(bench: Bench, rows: list[Row]) -> None:
    bench.run(*rows)


def one_a_tick(bench: Bench, rows: list[Row]) -> None:
    for row in rows:
        bench.submit(row)
        bench.tick()
    bench.tick_until_idle()


def neighbours_leave(bench: Bench, rows: list[Row]) -> None:
    """Compute each answer beside a row that is cancelled on the way."""
    leaving = [generation_of(tokens_of(seed, 9), 100) for seed in range(8)]
    bench.submit(*leaving, *rows)
    while bench.tick():
        if leaving:
            bench.cancel(leaving.pop())


@pytest.mark.parametrize("cell", INVARIANT)
@pytest.mark.parametrize(("slots", "chunk"), [(2, 1), (5, 3), (64, 4), (16, 16), (24, 64)])
@pytest.mark.parametrize("arrive", [all_at_once, one_a_tick, neighbours_leave])
def test_answers_have_the_same_bits_alone_and_in_a_crowd(
    networks: dict[Cell, Network],
    cell: Cell,
    slots: int,
    chunk: int,
    arrive: Callable[[Bench, list[Row]], None],
) -> None:
    together = crowd()
    arrive(bench_of(networks[cell], slots, chunk), together)
    for row, alone in zip(together, run_alone(networks[cell], crowd()), strict=True):
        assert_same(received(row), alone)


@pytest.mark.parametrize("cell", INVARIANT)
@pytest.mark.parametrize("slots", [64, 256])
@pytest.mark.parametrize("overhead", [0.0, 10.0, 300.0])
def test_answers_have_the_same_bits_at_every_size_that_the_tuner_may_choose(
    networks: dict[Cell, Network], cell: Cell, slots: int, overhead: float
) -> None:
    """Run seven crowds at once, so that slots fill up and drain: ticks run from one step to all of them."""
    together = [one for _ in range(7) for one in crowd()]
    bench = bench_of(
        networks[cell],
        slots,
        64,
        max_waiting=300,
        chunk_rows=64,
        overhead=overhead,
        write_interval_s=1e9,
        prompt_cache_bytes=1 << 20,
    )
    bench.run(*together)
    alone = run_alone(networks[cell], crowd())
    for row, right in zip(together, alone * 7, strict=True):
        assert_same(received(row), right)


@pytest.mark.parametrize(("slots", "chunk"), [(5, 3), (64, 4)])
def test_rnn_answers_are_close_alone_and_in_a_crowd(
    networks: dict[Cell, Network], slots: int, chunk: int
) -> None:
    """Compare whole rows by number and generated ones by their greedy tokens.

    The kernel's results differ by a unit in the last place.
    """
    together, alone = greedy_crowd(), run_alone(networks["rnn"], greedy_crowd())
    bench_of(networks["rnn"], slots, chunk).run(*together)
    for row, right in zip(together, alone, strict=True):
        for found, one in zip(received(row), right, strict=True):
            if isinstance(one, Generated):
                assert found.token == one.token
            else:
                np.testing.assert_allclose(found, one, atol=TOLERANCE)


@pytest.mark.parametrize("cell", INVARIANT)
def test_suspended_and_resumed_stream_has_the_same_bits(networks: dict[Cell, Network], cell: Cell) -> None:
    slow = generation_of(tokens_of(1, 6), 30, Sampling(seed=3), max_backlog=4)
    bench = bench_of(networks[cell], 3, 4)
    bench.submit(slow)
    while not slow.is_over:
        bench.tick_until_idle()
        bench.run(generation_of(tokens_of(2, 3), 4), last_of(tokens_of(3, 5)))
        reader_of(slow).take()
    [alone] = run_alone(networks[cell], [generation_of(tokens_of(1, 6), 30, Sampling(seed=3))])
    assert_same(received(slow), alone)


@pytest.mark.parametrize("cell", CELLS)
def test_last_outputs_equal_pytorch(networks: dict[Cell, Network], cell: Cell) -> None:
    network, _, _ = networks[cell]
    inputs = [tokens_of(length, length) for length in (1, 4, 5, 30)]
    rows = [last_of(one) for one in inputs]
    bench_of(networks[cell], 3, 4).run(*rows)
    for one, row in zip(inputs, rows, strict=True):
        np.testing.assert_allclose(
            received(row)[0], reference_outputs(network, torch.tensor(one))[-1], atol=TOLERANCE
        )


@pytest.mark.parametrize("cell", CELLS)
def test_scores_equal_pytorch(networks: dict[Cell, Network], cell: Cell) -> None:
    network, _, _ = networks[cell]
    inputs = [tokens_of(length, length) for length in (2, 5, 6, 30)]
    rows = [score_of(one) for one in inputs]
    bench_of(networks[cell], 3, 4).run(*rows)
    for one, row in zip(inputs, rows, strict=True):
        logprobs = torch.log_softmax(torch.from_numpy(reference_outputs(network, torch.tensor(one))), dim=1)
        right = logprobs[torch.arange(len(one) - 1), torch.tensor(one[1:])].numpy()
        np.testing.assert_allclose(received(row)[0], right, atol=TOLERANCE)


def greedy(
    network: RecurrentNetwork, prompt: list[int], count: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the tokens of PyTorch's greedy continuation, each with the logits that it was picked from; the
    whole text is computed anew for every token.
    """
    text = list(prompt)
    for _ in range(count):
        logits = reference_outputs(network, torch.tensor(text))[-1]
        text.append(int(logits.argmax()))
        yield text[-1], logits


@pytest.mark.parametrize("cell", CELLS)
def test_greedy_text_equals_pytorch(networks: dict[Cell, Network], cell: Cell) -> None:
    network, _, _ = networks[cell]
    rows = [generation_of(tokens_of(length, length), 12, Sampling(0.0)) for length in (1, 5, 9)]
    bench_of(networks[cell], 3, 4).run(*rows)
    for row in rows:
        right = list(greedy(network, row.request.inputs.tolist(), 12))
        assert [one.token for one in received(row)] == [token for token, _ in right]
        logprobs = [log_softmax(logits[None])[0, token] for token, logits in right]
        np.testing.assert_allclose([one.logprob for one in received(row)], logprobs, atol=TOLERANCE)


def test_features_equal_pytorch(tmp_path: Path) -> None:
    folder, network = tiny.export_forecaster(tmp_path)
    names = network.config.state_names
    runtime = Runtime(folder / "model.onnx", [(name, f"{name}.next") for name in names], "cpu", 1)
    bench = Bench(
        3,
        4,
        cell=runtime,
        shape=Shape(network.config.features, network.config.outputs, (network.config.hidden,)),
    )
    generator = np.random.default_rng(0)
    inputs = [
        generator.normal(size=(length, network.config.features)).astype(np.float32)
        for length in (1, 4, 5, 23)
    ]
    rows = [row_of(Request(one, Goal.LAST)) for one in inputs]
    bench.run(*rows)
    for row, one in zip(rows, inputs, strict=True):
        np.testing.assert_allclose(
            received(row)[0], reference_outputs(network, torch.from_numpy(one))[-1], atol=TOLERANCE
        )
