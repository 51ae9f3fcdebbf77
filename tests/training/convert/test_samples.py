"""Files of other exporters: each ends on its rung, and equals what its original computed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tests.training.convert.exporting import export
from training.convert.candidate import Candidate
from training.convert.cases import Case, Drawing
from training.convert.converted import Converted
from training.convert.foreign import Array, Refused
from training.convert.graph.session import Session
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.reading import read_onnx
from training.convert.proofs.running import CellRunner, run_whole

SAMPLES = Path(__file__).parent / "samples"
TOLERANCE = 2e-5

CHUNK, LENGTHS, EQUAL = "chunk", "whole, lengths", "whole, equal lengths"
RUNGS = {
    "bilstm_attention.dynamo": EQUAL,
    "bilstm_hidden.ts": LENGTHS,
    "caption_init.ts": "chunk, init",
    "emb_lstm_last.dynamo": CHUNK,
    "emb_lstm_last.ts": CHUNK,
    "gru_series_class.dynamo": CHUNK,
    "k_bilstm_pool.keras": EQUAL,
    "k_emb_mask_lstm.keras": EQUAL,
    "k_gru_reset_before.keras": EQUAL,
    "k_lstm_stack.keras": CHUNK,
    "stateful_lstm.ts": CHUNK,
}
REFUSED = {
    "batch_statistic.ts": "off by",
    "cell_loop.ts": "expected a recurrent node",
}


def rung_of(converted: Converted) -> str:
    if converted.kind == "chunk":
        return CHUNK if converted.init is None else "chunk, init"
    return LENGTHS if converted.padding == "lengths" else EQUAL


@pytest.mark.parametrize("name", RUNGS)
def test_a_sample_ends_on_its_rung_and_equals_its_original(name: str, tmp_path: Path) -> None:
    converted = climb(read_onnx(SAMPLES / f"{name}.onnx", tmp_path), Choices(), tmp_path)
    assert rung_of(converted) == RUNGS[name]
    assert converted.difference <= TOLERANCE
    assert max(one.width for one in converted.layers) == 24
    cases = list(answers(name.partition(".")[0], converted))
    assert len(cases) >= 5
    for case, expected in cases:
        [found] = run(converted, case, tmp_path)
        np.testing.assert_allclose(found[-len(expected) :], expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", REFUSED)
def test_a_sample_that_cannot_be_served_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=REFUSED[name]):
        climb(read_onnx(SAMPLES / f"{name}.onnx", tmp_path), Choices(), tmp_path)


def run(converted: Converted, case: Case, folder: Path) -> list[NDArray[np.float32]]:
    """Run one sequence on the converted graphs; rows of outputs, of each step or of the last alone."""
    drawing = Drawing(converted.input, converted.initial, converted.source)
    candidate = Candidate.of(converted)
    if converted.kind == "chunk":
        return CellRunner(candidate, drawing, folder).outputs([case], lambda row, tick: 1 + (row + tick) % 3)
    return run_whole(Session(converted.graph, folder), [case], drawing, not converted.pooled)


def answers(name: str, converted: Converted) -> Iterator[tuple[Case, NDArray[np.float32]]]:
    """Yield sequences of a sample's file with the original's outputs, (steps, outputs).

    Those that begin with another state than zero are left out.
    """
    with np.load(SAMPLES / f"{name}.npz") as file:
        arrays = dict(file)
    for index in range(len({key.partition(".")[0] for key in arrays})):
        inputs = named(arrays, f"{index}.in.")
        output = next(iter(named(arrays, f"{index}.out.").values()))
        if any(inputs[one].any() for one in ("h0", "c0") if one in inputs):
            continue
        steps = inputs[next(iter(inputs))]
        is_time_first = name == "word_lm_time_first"
        sequence = steps[:, 0] if is_time_first else steps[0]
        initial = {one.name: inputs[one.name][0] for one in converted.initial}
        yield Case(sequence, initial), output.reshape(-1, converted.outputs)


def named(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


class CellAsOutput(nn.Module):
    """A network whose output reads the cell of its LSTM, which is known after the last step alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(8, 2)

    def forward(self, rows: Tensor) -> Tensor:
        _, (hidden, cell) = self.layer(rows)
        return self.head(torch.cat([hidden[-1], cell[-1]], -1))  # type: ignore[no-any-return]


def test_an_output_of_cells_is_served_whole(tmp_path: Path) -> None:
    """A recurrent node in the head of a chunk cell would end the process where no output is wanted."""
    dynamic = {"inputs": {0: "batch", 1: "time"}, "outputs": {0: "batch"}}
    file = export(CellAsOutput(), [torch.zeros(1, 5, 3)], tmp_path / "cell.onnx", dynamic=dynamic)
    converted = climb(read_onnx(file, tmp_path), Choices(), tmp_path)
    assert rung_of(converted) == LENGTHS
    assert "more of a recurrent layer (LSTM) than its hidden state" in converted.tried[0][1]


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    model = onnx.load(str(SAMPLES / "emb_lstm_last.ts.onnx"))
    weights = next(one for one in model.graph.initializer if len(one.dims) == 3)
    values = numpy_helper.to_array(weights).copy()
    values[0, 0, 0] = np.nan
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, str(tmp_path / "nan.onnx"))
    with pytest.raises(Refused, match="hold NaN"):
        read_onnx(tmp_path / "nan.onnx", tmp_path)
