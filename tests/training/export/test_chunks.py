"""A graph run in pieces gives what the network gives for the whole."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.export.chunks import SERVED_ROWS, ChunkCell
from training.export.graph import build_graph, reference_outputs
from training.networks.network import NetworkConfig, RecurrentNetwork

TOLERANCE = 1e-5


def _network(*, has_tokens: bool = True) -> RecurrentNetwork:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocabulary": 9, "embedding": 4} if has_tokens else {"features": 3}
    return RecurrentNetwork(NetworkConfig("lstm", 2, 8, 5, **shape)).eval()


def _cell(network: RecurrentNetwork) -> ChunkCell:
    return ChunkCell(build_graph(network).SerializeToString())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 15), min_size=1, max_size=6), st.integers(1, 20), st.booleans())
def test_outputs_of_any_cut_equal_those_of_the_whole(lengths: list[int], most: int, has_tokens: bool) -> None:
    network = _network(has_tokens=has_tokens)
    inputs = [torch.randint(9, (length,)) if has_tokens else torch.randn(length, 3) for length in lengths]
    found = _cell(network).outputs(
        [one.numpy() for one in inputs], lambda row, tick: 1 + (3 * row + tick) % most
    )
    for outputs, one in zip(found, inputs, strict=True):
        np.testing.assert_allclose(outputs, reference_outputs(network, one), atol=TOLERANCE)


def test_more_rows_than_are_served_at_once_come_out_in_order() -> None:
    network = _network()
    inputs = [torch.randint(9, (1 + index % 7,)) for index in range(2 * SERVED_ROWS + 3)]
    found = _cell(network).served(one.numpy() for one in inputs)
    assert len(found) == len(inputs)
    for outputs, one in zip(found, inputs, strict=True):
        np.testing.assert_allclose(outputs, reference_outputs(network, one), atol=TOLERANCE)
