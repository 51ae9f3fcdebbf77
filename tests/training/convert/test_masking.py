"""Networks that skip the steps of one token: their conversions equal the original on the other steps."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.convert.exporting import export
from training.convert.foreign import Array
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.reading import read_onnx

TOKENS, WIDTH, OUTPUTS = 9, 8, 3
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
ENDS = ("last", "every", "states")


class Skipping(nn.Module):
    """A network that is exported as it is, and answers as one that skips each step of token 0."""

    def __init__(self, kind: str, ends: str, both: bool) -> None:
        super().__init__()
        self.ends, self.both, sides = ends, both, 2 if both else 1
        self.embedding = nn.Embedding(TOKENS, 6)
        self.layer = LAYERS[kind](6, WIDTH, 1 if both else 2, batch_first=True, bidirectional=both)
        self.head = nn.Linear(WIDTH * sides, OUTPUTS)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, states = self.layer(self.embedding(tokens))
        hidden = states[0] if isinstance(states, tuple) else states
        return self.ended(outputs, hidden)

    def ended(self, outputs: Tensor, hidden: Tensor) -> Tensor:
        if self.ends == "states":
            hidden = hidden if self.both else hidden[-1:]
            return self.head(hidden.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]
        last = 0 if self.both else -1  # the backward direction ends at the first step
        return self.head(outputs if self.ends == "every" else outputs[:, last])  # type: ignore[no-any-return]

    def skipping(self, feeds: Mapping[str, Array]) -> list[Array]:
        tokens = torch.from_numpy(feeds["tokens"])[0]
        kept = tokens[tokens != 0]
        sides = 2 if self.both else 1
        outputs, hidden = (
            torch.zeros(1, 0, WIDTH * sides),
            torch.zeros(self.layer.num_layers * sides, 1, WIDTH),
        )
        with torch.no_grad():
            if len(kept):
                outputs, states = self.layer(self.embedding(kept[None]))
                hidden = states[0] if isinstance(states, tuple) else states
            zeros = torch.zeros(1, 1, WIDTH)
            before = (tokens != 0).cumsum(0)
            spread = torch.cat([zeros, outputs[..., :WIDTH]], 1)[:, before]
            if self.both:
                behind = torch.cat([outputs[..., WIDTH:], zeros], 1)[:, before - (tokens != 0).long()]
                spread = torch.cat([spread, behind], -1)
            return [self.ended(spread, hidden).numpy()]


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", LAYERS)
def test_skipped_steps_leave_the_state_as_it_was(kind: str, ends: str, both: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = Skipping(kind, ends, both).eval()
    file = export(network, [torch.ones(1, 5, dtype=torch.int64)], tmp_path / "network.onnx", ["tokens"])
    foreign = replace(read_onnx(file, tmp_path), oracle=network.skipping, skipped_token=0)
    converted = climb(foreign, Choices(), tmp_path)
    is_chunk = not both
    assert (converted.kind, converted.padding) == ("chunk" if is_chunk else "whole", "lengths")
    assert converted.difference < 1e-6
    assert any(np.any(example.inputs == 0) for example in converted.examples), "steps are skipped in examples"
