"""training.export.ngram: a chunk cell mixed with an n-gram computes what PyTorch does, however it is cut."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.contract import spec
from tests.training.letters import FACTS
from training.export.chunks import ChunkCell, Take
from training.export.export import Package, export, largest_error, provenance
from training.export.generation import generation_graph
from training.export.generation_graph import StateTensor
from training.export.graph import build_graph
from training.export.quantize import quantize
from training.networks.mixture import MixedNetwork, kinds_of
from training.networks.network import CELLS, Cell, NetworkConfig, RecurrentNetwork
from training.networks.ngram import count_ngrams

VOCABULARY = "\n abcdefghijk"
SIZE = len(VOCABULARY)


def mixed(cell: Cell = "lstm", order: int = 4, hidden: int = 9) -> MixedNetwork:
    """Return a network of random weights, mixed with the n-grams of a random text."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    ids = (random.random(2000) ** 2 * SIZE).astype(np.int64)
    network = RecurrentNetwork(NetworkConfig(cell, 2, hidden, SIZE, vocabulary=SIZE, embedding=5)).eval()
    weights = random.random(kinds_of(order)).astype(np.float32)
    return MixedNetwork(network, count_ngrams(ids, SIZE, order, 1 << 20), weights)


def texts(*lengths: int) -> list[torch.Tensor]:
    random = np.random.default_rng(1)
    return [torch.from_numpy((random.random(length) ** 2 * SIZE).astype(np.int64)) for length in lengths]


def at_most(steps: int) -> Take:
    return lambda row, tick: steps  # noqa: ARG005


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order", [2, 3, 5])
def test_graph_computes_what_pytorch_computes(cell: Cell, order: int) -> None:
    network = mixed(cell, order)
    graph = ChunkCell(build_graph(network).SerializeToString())
    assert largest_error(graph, network, texts(1, 2, 7, 40)) < 1e-5


def test_output_is_the_logarithm_of_the_mixed_probabilities() -> None:
    network = mixed()
    [ids] = texts(60)
    with torch.no_grad():
        hidden, _ = network(ids[None])
        found = network.outputs_of(hidden)[0].double().exp().numpy()
        own = network.own_logits(hidden)[0].double().softmax(-1).numpy()
        kinds = network.evidence(hidden[0, :, 9:]).kind.numpy()
    table, weight = network.table, network.weights.numpy()[kinds][:, None]
    ngram = table.probabilities(table.contexts(ids.numpy()))
    assert found == pytest.approx(weight * own + (1 - weight) * ngram, abs=1e-6)
    assert len(set(kinds.tolist())) > 4


@pytest.mark.parametrize("int8", [False, True])
def test_bits_do_not_depend_on_cuts_and_rows(int8: bool) -> None:
    network = mixed(hidden=512) if int8 else mixed()
    data = quantize(network) if int8 else build_graph(network).SerializeToString()
    cell, rows = ChunkCell(data), [one.numpy() for one in texts(1, 3, 8, 33)]
    whole = cell.outputs(rows, at_most(33))
    unequal = cell.outputs(rows, lambda row, tick: 1 + (row + tick) % 3)
    alone = [cell.outputs([row], at_most(2))[0] for row in rows]
    for one, other, third in zip(whole, unequal, alone, strict=True):
        assert one.tobytes() == other.tobytes() == third.tobytes()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order", [2, 4])
def test_generation_graph_has_the_bits_of_the_chunk_cell(cell: Cell, order: int) -> None:
    network = mixed(cell, order)
    data = build_graph(network).SerializeToString()
    states = [StateTensor(name, name + spec.NEXT_SUFFIX, size) for name, size in network.state_sizes]
    graph = generation_graph(data, "model.onnx", states, SIZE, network.config, network)
    assert graph is not None
    assert len(graph) < 64_000  # the table is not copied


def test_mixed_network_is_exported_with_a_state_for_its_contexts(tmp_path: Path) -> None:
    network = mixed()
    text = spec.Characters(kind="characters", vocabulary=VOCABULARY)
    package = Package(
        name="mixed",
        network=network,
        section=spec.Generation(text=text, start_token=0, max_tokens=9),
        examples=texts(1, 7, 20),
        metrics={"held_out_loss": 1.5, "baseline_uniform_loss": 3.0},
        provenance=provenance("a text", "not recorded", "0" * 64, seed=0),
        card=FACTS,
        int8=quantize(network),
    )
    for has_generation in (True, False):
        folder = export(replace(package, has_generation=has_generation), tmp_path)
        model, _ = spec.read_spec(folder)
        assert [one.size for one in model.network.states] == [9, 9, 9, 9, 3]
        assert (model.variants["fp32"].generation is not None) is has_generation
        for variant in ("fp32", "int8"):
            checked = subprocess.run(
                [sys.executable, "-m", "service", "check", str(folder), "--variant", variant],
                capture_output=True,
                text=True,
                check=False,
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr
