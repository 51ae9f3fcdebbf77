"""A network whose head sees the last values of a feature: in any cuts and batches, in PyTorch and in ONNX."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.export.chunks import ChunkCell
from training.export.graph import build_graph, reference_outputs
from training.networks.network import LAGS, NetworkConfig, RecurrentNetwork
from training.networks.volatility import Volatility

LAG_COUNT, FEATURES, OUTPUTS = 6, 3, 4
TOLERANCE = 1e-5
CELLS: Any = ("gru", "lstm", "rnn")


def network(cell: Any = "gru", layers: int = 1) -> RecurrentNetwork:
    torch.manual_seed(0)
    config = NetworkConfig(cell, layers, 8, OUTPUTS, features=FEATURES, lags=LAG_COUNT, lag_feature=1)
    return RecurrentNetwork(config).eval()


def served(made: RecurrentNetwork) -> ChunkCell:
    return ChunkCell(build_graph(made).SerializeToString())


def test_lags_are_the_last_values_of_their_feature_and_zeros_before_the_first() -> None:
    features = torch.randn(2, 9, FEATURES)
    made = network()
    hidden, after = made(features)
    for step in range(9):
        past = torch.cat([torch.zeros(2, LAG_COUNT), features[:, : step + 1, 1]], dim=1)[:, -LAG_COUNT:]
        assert torch.equal(hidden[:, step, 8:], past * made.config.lag_scale)
    assert torch.equal(after[-1], features[:, -LAG_COUNT:, 1])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cut", [1, 3, 6, 8])
def test_lags_go_on_where_a_sequence_was_cut(cell: Any, cut: int) -> None:
    features, made = torch.randn(3, 9, FEATURES), network(cell, layers=2)
    with torch.no_grad():
        whole, end = made(features)
        first, between = made(features[:, :cut])
        second, after = made(features[:, cut:], None, between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    assert torch.equal(torch.cat([first, second], dim=1)[:, :, 8:], whole[:, :, 8:])
    for found, expected in zip(after, end, strict=True):
        torch.testing.assert_close(found, expected)


def test_rows_that_end_early_keep_the_lags_of_their_end() -> None:
    features, made = torch.randn(3, 9, FEATURES), network()
    lengths = torch.tensor([9, 2, 5])
    with torch.no_grad():
        _, together = made(features, lengths)
        for row, length in enumerate(lengths.tolist()):
            _, alone = made(features[row : row + 1, :length])
            assert torch.equal(together[-1][row : row + 1], alone[-1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 15), min_size=1, max_size=6),
    st.integers(1, 20),
    st.sampled_from(CELLS),
    st.integers(0, 1000),
)
def test_graph_in_any_cut_computes_what_pytorch_does_of_the_whole(
    lengths: list[int], most: int, cell: Any, seed: int
) -> None:
    made = network(cell)
    torch.manual_seed(seed)
    inputs = [torch.randn(length, FEATURES) for length in lengths]
    found = served(made).outputs(
        [one.numpy() for one in inputs], lambda row, tick: 1 + (3 * row + tick) % most
    )
    for outputs, one in zip(found, inputs, strict=True):
        np.testing.assert_allclose(outputs, reference_outputs(made, one), atol=TOLERANCE)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_row_has_the_same_bits_alone_and_in_a_crowd(cell: Any) -> None:
    torch.manual_seed(1)
    inputs = [torch.randn(1 + 3 * index % 17, FEATURES).numpy() for index in range(24)]
    made = served(network(cell))
    together = made.outputs(inputs, lambda row, tick: 1 + (row + tick) % 5)
    for one, found in zip(inputs, together, strict=True):
        [alone] = made.outputs([one], lambda row, tick: 7)  # noqa: ARG005
        np.testing.assert_array_equal(alone, found)


def test_graph_has_the_lags_as_its_last_state_and_passes_the_checker() -> None:
    model = build_graph(network("lstm", layers=2))
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.input][-2] == LAGS
    assert network().config.state_widths == {"layer0.h": 8, LAGS: LAG_COUNT}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lag_feature": FEATURES}, "a feature below 3, not 3"),
        ({"outputs": 0}, "lags need a head"),
        ({"volatility": Volatility((0,), (1.0,), (0,), 0.9, 1.0)}, "exclude each other"),
    ],
)
def test_impossible_lags_are_refused(changes: dict[str, Any], message: str) -> None:
    shape = {"outputs": OUTPUTS, "features": FEATURES, "lags": LAG_COUNT, "lag_feature": 1} | changes
    with pytest.raises(ValueError, match=message):
        NetworkConfig("gru", 1, 8, **shape)


def test_config_of_a_network_with_lags_survives_a_checkpoint() -> None:
    config = network().config
    assert NetworkConfig(**config.to_dict()) == config
    assert "lags" not in NetworkConfig("gru", 1, 8, 4, features=3).to_dict()
