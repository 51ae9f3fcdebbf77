"""The exported graphs compute what PyTorch computes, however rows are batched, padded and cut."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.export.sequences.random_networks import configs, examples_of, network_of
from training.export.sequences.compare import Graphs, largest_error, reference
from training.export.sequences.graphs import chunk_graph, init_graph, whole_graph
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

# LayerNorm over a few values that are nearly the same magnifies the last places of float32.
TOLERANCE = 1e-4


def graphs(network: SequenceNetwork, padding: str = "lengths") -> Graphs:
    if network.config.kind == "whole":
        return Graphs(whole_graph(network, padding).SerializeToString())  # type: ignore[arg-type]
    init = init_graph(network).SerializeToString() if network.config.initial else None
    return Graphs(chunk_graph(network).SerializeToString(), init)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(configs(), st.lists(st.integers(1, 14), min_size=1, max_size=5), st.integers(0, 1000))
def test_any_network_equals_pytorch(config: SequenceConfig, lengths: list[int], seed: int) -> None:
    network = network_of(config, seed)
    examples = examples_of(config, tuple(lengths), seed)
    assert largest_error(network, graphs(network), "lengths", examples) <= TOLERANCE


@pytest.mark.parametrize("pooling", [None, "last", "mean", "max"])
def test_network_without_lengths_equals_pytorch(pooling: str | None) -> None:
    layers = (LayerConfig("lstm", 5, "both"), LayerConfig("gru", 3, "both"))
    config = SequenceConfig("whole", layers, 2, features=4, pooling=pooling)  # type: ignore[arg-type]
    network = network_of(config)
    examples = examples_of(config, (1, 4, 9))
    assert largest_error(network, graphs(network, "none"), "none", examples) <= TOLERANCE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(configs(), st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 1000))
def test_padded_batch_equals_each_sequence_alone_in_pytorch(
    config: SequenceConfig, lengths: list[int], seed: int
) -> None:
    """Training pads batches; golden examples are computed alone."""
    network = network_of(config, seed)
    examples = examples_of(config, tuple(lengths), seed)
    padded = torch.nn.utils.rnn.pad_sequence([one.inputs for one in examples], batch_first=True)
    state = None
    if config.initial:
        initial = {name: torch.stack([one.initial[name] for one in examples]) for name, _ in config.initial}
        state = network.first_state(len(examples), initial)
    with torch.no_grad():
        together, _ = network(padded, torch.tensor(lengths), state)
    for row, example in zip(together, examples, strict=True):
        alone = torch.from_numpy(reference(network, example))
        found = row[None] if config.pooling else row[: len(example.inputs)]
        torch.testing.assert_close(found, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", [None, "last", "mean", "max"])
def test_rows_have_the_same_bits_alone_and_padded_to_any_length(pooling: str | None) -> None:
    """Of a mean written as a MatMul of one row, every fifth differs in the last place."""
    config = SequenceConfig("whole", (LayerConfig("lstm", 9, "both"),), 3, features=4, pooling=pooling)  # type: ignore[arg-type]
    session = ort.InferenceSession(
        whole_graph(network_of(config)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for length in (1, 2, 3, 6, 7, 11, 30, 129, 150):
        (example,) = examples_of(config, (length,))
        rows = example.inputs.numpy()[None]
        (alone,) = session.run(None, {"input": rows, "lengths": np.array([length], np.int32)})
        for padding in (1, 2, 5, 140):
            padded = np.concatenate([rows, np.full((1, padding, 4), 3, np.float32)], 1).repeat(3, 0)
            lengths = np.array([length, 1, length + padding], np.int32)
            (found,) = session.run(None, {"input": padded, "lengths": lengths})
            row = found[0] if pooling else found[0, :length]
            np.testing.assert_array_equal(row, alone[0])


def test_error_is_that_of_the_forecast_made_one_step_before() -> None:
    config = SequenceConfig("chunk", (LayerConfig("gru", 4),), 1, features=2, is_error=True)
    network = network_of(config)
    (example,) = examples_of(config, (6,))
    with torch.no_grad():
        forecasts = network.forecasts(example.inputs[None])[0]
    observed = example.inputs[:, :1]
    right = (observed[1:] - forecasts[:-1]).abs() / network.deviation
    torch.testing.assert_close(torch.from_numpy(reference(network, example))[1:], right.detach())


def test_comparison_finds_a_graph_that_reads_its_padding() -> None:
    """Without this, the tests above could pass because nothing was compared."""
    config = SequenceConfig("whole", (LayerConfig("gru", 4, "both"),), 2, features=3, pooling="last")
    network = network_of(config)
    graph = whole_graph(network)
    recurrent = next(node for node in graph.graph.node if node.op_type == "GRU")
    recurrent.input[4] = ""  # sequence_lens
    examples = examples_of(config, (2, 7))
    assert largest_error(network, Graphs(graph.SerializeToString()), "lengths", examples) > 0.01


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"vocabulary": 3}, "either vocabulary or features must be positive"),
        ({"features": 0, "vocabulary": 3}, "token input needs an embedding"),
        ({"pooling": "mean"}, "a chunk cell must have forward layers alone"),
        ({"layers": (LayerConfig("gru", 2, "backward"),)}, "a chunk cell must have forward layers alone"),
        ({"kind": "whole", "starts": "learned"}, "need a chunk cell, found a whole network"),
        ({"is_error": True, "outputs": 3}, r"is_error needs outputs of 1\.\.2, found 3"),
    ],
)
def test_shape_that_cannot_be_is_refused(changes: dict[str, object], text: str) -> None:
    fields = {"kind": "chunk", "layers": (LayerConfig("gru", 2),), "outputs": 1, "features": 2}
    with pytest.raises(ValueError, match=text):
        SequenceConfig(**(fields | changes))  # type: ignore[arg-type]
