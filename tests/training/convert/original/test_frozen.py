"""Exports with fixed sizes become chunk cells, compared with the file at the one length that it takes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from service.contract import spec
from tests.training.convert.exports import DYNAMO_FORMS, FORMS, Form, Net, legacy, legacy_form, stored
from training.convert.converted import Converted
from training.convert.foreign import Foreign, Refused
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.repairs import written_steps

STATIC = [form for form in FORMS if not form.is_dynamic and form.layers == 2 and form.head != "h_n"]
FROZEN = [
    form for form in DYNAMO_FORMS if form.kind == "LSTM" and (not form.is_dynamic or not form.batch_first)
]


def convert(model: onnx.ModelProto, folder: Path) -> Converted:
    source = spec.Source(file="net.onnx", sha256="0" * 64)
    return climb(Foreign(model, source), Choices(), folder)


@pytest.mark.parametrize("form", STATIC, ids=lambda form: form.name)
def test_legacy_export_of_one_size_becomes_a_chunk_cell(form: Form, tmp_path: Path) -> None:
    _, model = legacy_form(form)
    made = convert(model, tmp_path)
    assert (made.kind, made.every_step) == ("chunk", form.head == "every")
    assert made.difference <= 1e-6
    assert any("(7)" in sentence for sentence in made.repaired)


@pytest.mark.parametrize("form", FROZEN, ids=lambda form: form.name)
def test_dynamo_export_of_one_length_becomes_a_chunk_cell(form: Form, tmp_path: Path) -> None:
    _, model = stored(form)
    made = convert(model, tmp_path)
    assert made.kind == "chunk"
    assert made.difference <= 1e-6


def test_batch_of_the_export_is_no_part_of_the_answer(tmp_path: Path) -> None:
    form = Form("GRU", False, 1, "every", False)
    module = Net(form)
    made = convert(legacy(module, torch.zeros(form.shape(3, 7))), tmp_path)
    assert made.kind == "chunk"
    assert {len(one.inputs) for one in made.examples} >= {7}
    for one in made.examples:
        with torch.no_grad():
            expected = module(torch.from_numpy(one.inputs)[:, None]).numpy()[:, 0]
        np.testing.assert_allclose(one.outputs, expected[list(one.steps)], atol=1e-6)


def test_length_that_a_reshape_holds_is_known() -> None:
    _, model = stored(Form("LSTM", False, 2, "last", True))
    assert written_steps(model) == 7
    _, free = legacy_form(Form("LSTM", False, 2, "last", True))
    assert written_steps(free) is None


def test_unrolled_layer_is_refused_with_what_to_do(tmp_path: Path) -> None:
    _, model = stored(Form("RNN", True, 1, "last", False))
    with pytest.raises(Refused, match="expected a recurrent node") as caught:
        convert(model, tmp_path)
    assert "export one step" in caught.value.advice
