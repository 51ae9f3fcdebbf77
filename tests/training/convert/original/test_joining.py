"""An encoder and a decoder of two files become one network, whatever their files call their axes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from tests.training.convert.exporting import export
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.ways import read, read_pair

WIDTH, TOKENS = 8, 12


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru = nn.Embedding(TOKENS, 6), nn.GRU(6, WIDTH, batch_first=True)

    def forward(self, source: Tensor) -> Tensor:
        hidden: Tensor = self.gru(self.table(source))[1]
        return hidden


class Decoder(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        logits: Tensor = self.head(self.gru(self.table(tokens), h0)[0])
        return logits


def test_source_may_be_longer_than_the_sequence_where_both_axes_are_called_time(tmp_path: Path) -> None:
    tokens, first = torch.ones(1, 5, dtype=torch.int64), torch.zeros(1, 1, WIDTH)
    sequences, states = {0: "batch", 1: "time"}, {1: "batch"}
    torch.manual_seed(0)
    axes = {"source": sequences, "tokens": sequences, "logits": sequences, "h0": states}
    encoder = export(Encoder(), [tokens], tmp_path / "encoder.onnx", ["source"], ["h0"], axes)
    decoder = export(
        Decoder(), [tokens, first], tmp_path / "decoder.onnx", ["tokens", "h0"], ["logits"], axes
    )
    choices = Choices(encoder=encoder)
    (weights := tmp_path / "weights").mkdir()
    converted = climb(read_pair(read(decoder, weights), choices, weights), choices, weights)
    assert converted.kind == "chunk"
    assert converted.source is not None
    assert converted.difference <= 1e-6
