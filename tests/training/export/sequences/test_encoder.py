"""Networks that begin where an encoder ends: batches, their graphs, and what is refused."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from tests import encoder_decoder
from training.export.sequences.graphs import init_graph
from training.networks.sequences import LayerConfig, SequenceConfig


def test_sources_side_by_side_give_the_states_that_each_gives_alone() -> None:
    network = encoder_decoder.digits().network
    sources = [encoder_decoder.source_tokens(text) for text in ("4", "90210", "123")]
    lengths = torch.tensor(list(map(len, sources)))
    with torch.no_grad():
        together = network.first_state(3, source=pad_sequence(sources, True), source_lengths=lengths)
        alone = [network.first_state(1, source=one[None]) for one in sources]
    for index, tensor in enumerate(together):
        for row, one in zip(tensor, alone, strict=True):
            torch.testing.assert_close(row, one[index][0])


@pytest.mark.parametrize("name", encoder_decoder.PACKAGES)
def test_init_graph_gives_pytorch_s_states(name: str) -> None:
    package = encoder_decoder.PACKAGES[name]()
    session = ort.InferenceSession(init_graph(package.network).SerializeToString())
    for example in package.examples:
        assert example.source is not None
        given = {key: row[None] for key, row in example.initial.items()}
        with torch.no_grad():
            expected = package.network.first_state(1, given, example.source[None])
        feeds = {key: row.numpy() for key, row in given.items()} | {"source": example.source[None].numpy()}
        for tensor, found in zip(expected, session.run(None, feeds), strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), atol=2e-6)


def test_encoder_without_one_output_a_source_is_refused() -> None:
    layers = (LayerConfig("gru", 4),)
    every = SequenceConfig("whole", layers, 0, features=2)
    with pytest.raises(ValueError, match="an encoder must have pooling"):
        SequenceConfig("chunk", layers, 3, vocabulary=3, embedding=2, encoder=every)
    pooled = SequenceConfig("whole", layers, 0, features=2, pooling="last")
    with pytest.raises(ValueError, match="encoder and is_error need a chunk cell"):
        SequenceConfig("whole", layers, 3, features=2, pooling="last", encoder=pooled)
