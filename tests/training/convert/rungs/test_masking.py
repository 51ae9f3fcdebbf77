"""Networks that skip steps of one token, or rows of one number, equal the original on the other steps."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from service.contract import spec
from tests.training.convert.exporting import export
from training.convert.foreign import Array, Refused
from training.convert.graph.copying import Copier
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.reading import read_onnx
from training.convert.rungs.masking import Skipped

TOKENS, WIDTH, OUTPUTS = 9, 8, 3
FEATURES, VALUE = 3, -0.7
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
ENDS = ("last", "every", "states")


class Skipping(nn.Module):
    """A network that is exported as it is, and answers as one that skips steps of token 0, or of `VALUE`s."""

    def __init__(self, kind: str, ends: str, both: bool, rows: bool = False) -> None:
        super().__init__()
        self.ends, self.both, sides = ends, both, 2 if both else 1
        self.embedding = nn.Linear(FEATURES, 6) if rows else nn.Embedding(TOKENS, 6)
        self.rows = rows
        self.layer = LAYERS[kind](6, WIDTH, 1 if both else 2, batch_first=True, bidirectional=both)
        self.head = nn.Linear(WIDTH * sides, OUTPUTS)

    def forward(self, steps: Tensor) -> Tensor:
        outputs, states = self.layer(self.embedding(steps))
        hidden = states[0] if isinstance(states, tuple) else states
        return self.ended(outputs, hidden)

    def ended(self, outputs: Tensor, hidden: Tensor) -> Tensor:
        if self.ends == "states":
            hidden = hidden if self.both else hidden[-1:]
            return self.head(hidden.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]
        last = 0 if self.both else -1  # the backward direction ends at the first step
        return self.head(outputs if self.ends == "every" else outputs[:, last])  # type: ignore[no-any-return]

    def skipping(self, feeds: Mapping[str, Array]) -> list[Array]:
        steps = torch.from_numpy(feeds["steps"])[0]
        counts = torch.ne(steps, torch.tensor(VALUE)).any(-1) if self.rows else torch.ne(steps, 0)
        kept = steps[counts]
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
            before = counts.cumsum(0)
            spread = torch.cat([zeros, outputs[..., :WIDTH]], 1)[:, before]
            if self.both:
                behind = torch.cat([outputs[..., WIDTH:], zeros], 1)[:, before - counts.long()]
                spread = torch.cat([spread, behind], -1)
            return [self.ended(spread, hidden).numpy()]


@pytest.mark.parametrize("rows", [False, True], ids=["tokens", "rows"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", LAYERS)
def test_skipped_steps_leave_the_state_as_it_was(
    kind: str, ends: str, both: bool, rows: bool, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    network = Skipping(kind, ends, both, rows).eval()
    given = torch.ones(1, 5, FEATURES) if rows else torch.ones(1, 5, dtype=torch.int64)
    file = export(network, [given], tmp_path / "network.onnx", ["steps"])
    value = VALUE if rows else 0
    foreign = replace(read_onnx(file, tmp_path), oracle=network.skipping, skipped_value=value)
    converted = climb(foreign, Choices(), tmp_path)
    is_chunk = not both
    assert (converted.kind, converted.padding) == ("chunk" if is_chunk else "whole", "lengths")
    assert converted.difference < 1e-6
    skipped = [one.inputs == np.asarray(value, one.inputs.dtype) for one in converted.examples]
    assert any(np.any(one.all(-1) if rows else one) for one in skipped), "steps are skipped in examples"


def _skip_any(self: Skipped, copier: Copier, name: str) -> str:
    """Say that a row is skipped where any of its features has the value, instead of all."""
    is_equal = copier.node("Equal", [spec.INPUT, self.constant(copier)], f"{name}.is_equal")
    numbers = copier.node("Cast", [is_equal], f"{name}.numbers", to=TensorProto.INT64)
    count = copier.node("ReduceSum", [numbers, copier.shape(2)], f"{name}.equal", keepdims=0)
    return copier.node("Equal", [count, copier.scalar(0)], f"{name}.equal_nowhere")


def _skip_none(self: Skipped, copier: Copier, name: str) -> str:
    is_equal = copier.node("Equal", [spec.INPUT, self.constant(copier)], f"{name}.is_equal")
    numbers = copier.node("Cast", [is_equal], f"{name}.numbers", to=TensorProto.INT64)
    count = copier.node("ReduceSum", [numbers, copier.shape(2)], f"{name}.equal", keepdims=0)
    return copier.node("GreaterOrEqual", [count, copier.scalar(0)], f"{name}.always")


@pytest.mark.parametrize("broken", [_skip_any, _skip_none])
def test_conversion_that_skips_other_rows_is_refused(
    broken: Callable[[Skipped, Copier, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Skipped, "found", broken)
    network = Skipping("GRU", "every", both=False, rows=True).eval()
    file = export(network, [torch.ones(1, 5, FEATURES)], tmp_path / "network.onnx", ["steps"])
    foreign = replace(read_onnx(file, tmp_path), oracle=network.skipping, skipped_value=VALUE)
    with pytest.raises(Refused, match="no way to serve the network is proven"):
        climb(foreign, Choices(), tmp_path)
