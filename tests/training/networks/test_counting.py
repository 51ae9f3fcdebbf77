"""Units that count words: what a word says, summed up, in PyTorch and as exported."""

import numpy as np
import pytest
import torch

from training.export.chunks import ChunkCell
from training.export.graph import build_graph
from training.loop.fit import build_network
from training.networks.counting import LARGEST_EVIDENCE, can_count, counting_network, evidence
from training.networks.ensemble import side_by_side
from training.networks.network import NetworkConfig

CONFIG = NetworkConfig("lstm", 1, 5, 3, vocabulary=7, embedding=4, dropout=0.5, input_dropout=0.5)


def test_evidence_is_the_log_share_of_a_word_among_a_labels_words_and_counts_once_a_text() -> None:
    given = evidence([torch.tensor([1, 1, 2]), torch.tensor([2])], np.eye(2, dtype=np.float32), 3)
    # One each to begin with: the first label has seen words 1 and 2, the second one word 2.
    expected = np.log([[1 / 5, 1 / 4], [2 / 5, 1 / 4], [2 / 5, 2 / 4]])
    np.testing.assert_allclose(given, expected - expected.mean(axis=1, keepdims=True), rtol=1e-5)


def test_counting_units_add_up_what_words_say_within_the_bound() -> None:
    given = torch.randn(CONFIG.vocabulary, CONFIG.outputs) * 0.5
    network, tokens = counting_network(CONFIG, given), torch.randint(CONFIG.vocabulary, (4, 30))
    with torch.no_grad():
        outputs = network.outputs_of(network(tokens)[0])
    summed = given[tokens].cumsum(dim=1)
    torch.testing.assert_close(
        outputs, LARGEST_EVIDENCE * (summed / LARGEST_EVIDENCE).tanh(), atol=1e-5, rtol=0
    )


def test_counts_beside_a_network_give_the_weighted_sum_of_both_as_exported_too() -> None:
    network, counts = (
        build_network(CONFIG, 0, "cpu").eval(),
        counting_network(CONFIG, torch.randn(7, 3) * 0.5),
    )
    joined, tokens = side_by_side([network, counts], [1, 0.4]), torch.randint(7, (2, 9))
    with torch.no_grad():
        expected = network.outputs_of(network(tokens)[0]) + 0.4 * counts.outputs_of(counts(tokens)[0])
        torch.testing.assert_close(joined.outputs_of(joined(tokens)[0]), expected, atol=1e-5, rtol=0)
    (served,) = ChunkCell(build_graph(joined).SerializeToString()).served([tokens[0].numpy()])
    torch.testing.assert_close(torch.from_numpy(served[-1]), expected[0, -1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("cell", "layers", "expected"),
    [("lstm", 1, True), ("lstm", 2, False), ("gru", 1, False), ("rnn", 1, False)],
)
def test_one_layer_of_lstm_can_count(cell: str, layers: int, expected: bool) -> None:
    assert can_count(NetworkConfig(cell, layers, 5, 2, vocabulary=7, embedding=4)) is expected  # type: ignore[arg-type]
