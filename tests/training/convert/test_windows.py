"""Networks of one number of time steps: they need a window, and are whole networks of that length."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from service.contract import spec
from tests.training.convert.exporting import export
from training.convert.foreign import Refused
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.reading import read_onnx

STEPS, FEATURES, WIDTH = 12, 4, 6


class Flattened(nn.Module):
    """A network whose head reads the outputs of all time steps at once."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.layer = nn.LSTM(FEATURES, WIDTH, batch_first=batch_first, bidirectional=True)
        self.head = nn.Linear(STEPS * 2 * WIDTH, 3)

    def forward(self, rows: Tensor) -> Tensor:
        outputs = self.layer(rows)[0]
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        return self.head(outputs.flatten(1))  # type: ignore[no-any-return]


def exported(folder: Path, batch_first: bool = True) -> Path:
    torch.manual_seed(0)
    shape = (1, STEPS, FEATURES) if batch_first else (STEPS, 1, FEATURES)
    axis = 0 if batch_first else 1
    dynamic = {"inputs": {axis: "batch"}, "outputs": {0: "batch"}}
    return export(Flattened(batch_first), [torch.zeros(shape)], folder / "network.onnx", dynamic=dynamic)


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_network_of_one_length_is_whole_with_a_window(batch_first: bool, tmp_path: Path) -> None:
    file = exported(tmp_path, batch_first)
    found = climb(read_onnx(file, tmp_path), Choices(window=STEPS), tmp_path)
    assert (found.kind, found.padding, found.pooled) == ("whole", "none", True)
    assert found.window is not None
    assert found.window.to == STEPS
    assert {len(example.inputs) for example in found.examples} == {STEPS}
    assert found.difference < 1e-6


def test_the_length_is_asked_for_where_the_file_declares_it(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"{STEPS} time steps alone; say how .*--window {STEPS}"):
        climb(read_onnx(exported(tmp_path), tmp_path), Choices(), tmp_path)


def test_a_window_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="expected one axis of the input to be time"):
        climb(read_onnx(exported(tmp_path), tmp_path), Choices(window=STEPS + 1), tmp_path)


def test_a_network_of_any_length_stays_so_with_a_window(tmp_path: Path) -> None:
    layer = nn.GRU(FEATURES, WIDTH, batch_first=True)
    file = export(layer, [torch.zeros(1, 5, FEATURES)], tmp_path / "any.onnx")
    found = climb(read_onnx(file, tmp_path), Choices(window=STEPS), tmp_path)
    assert (found.kind, found.window) == ("chunk", None)
    assert found.layers == (spec.Layer(kind="gru", width=WIDTH),)
