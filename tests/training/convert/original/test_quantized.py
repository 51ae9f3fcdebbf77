"""Dynamic quantization makes answers depend on neighbours and lengths, and is refused by name."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from tests.training.convert.exports import Form, legacy_form
from training.convert.foreign import Array, Foreign, Refused
from training.convert.graph.session import Session
from training.convert.ladder import climb
from training.convert.options import Choices
from training.convert.original.quantized import DYNAMIC, refuse_dynamic_quantization

FORM = Form("LSTM", True, 2, "every", True)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """An LSTM and its head as onnxruntime quantizes them."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    folder = tmp_path_factory.mktemp("quantized")
    onnx.save(legacy_form(FORM)[1], str(folder / "float.onnx"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_dynamic(folder / "float.onnx", folder / "int8.onnx")
    return onnx.load(str(folder / "int8.onnx"))


def outputs(session: Session, x: NDArray[np.float32]) -> Array:
    return session.run({"x": x})[0]


def test_quantized_file_is_refused_with_what_to_do(quantized: onnx.ModelProto, tmp_path: Path) -> None:
    foreign = Foreign(quantized, spec.Source(file="int8.onnx", sha256="0" * 64))
    with pytest.raises(Refused, match=r"dynamic quantization \(DynamicQuantizeLSTM") as caught:
        climb(foreign, Choices(), tmp_path)
    assert caught.value.advice == "convert the float file that it was quantized from"


def test_answers_of_a_quantized_file_depend_on_neighbours_and_length(quantized: onnx.ModelProto) -> None:
    """The reason for the refusal: no tolerance of a proof (2e-5) leaves room for this."""
    session = Session(quantized, None)
    x = np.random.default_rng(0).normal(0, 1, (8, 40, 3)).astype(np.float32)
    alone = outputs(session, x[:1])
    loud = np.concatenate([x[:1], 10 * x[1:]])
    assert np.abs(outputs(session, loud)[:1] - alone).max() > 1e-3
    assert np.abs(outputs(session, x[:1, :20]) - alone[:, :20]).max() > 1e-4


@pytest.mark.parametrize("operator", sorted(DYNAMIC))
def test_each_dynamic_operator_is_found_inside_branches(operator: str) -> None:
    inner = helper.make_graph([helper.make_node(operator, ["x"], ["y"])], "inner", [], [])
    outer = helper.make_node("If", ["condition"], ["z"], then_branch=inner, else_branch=inner)
    with pytest.raises(Refused, match=operator):
        refuse_dynamic_quantization(helper.make_graph([outer], "outer", [], []))


def test_weights_of_int8_are_right(tmp_path: Path) -> None:
    """They are the same for every row."""
    module, model = legacy_form(FORM)
    (weight,) = [
        one for one in model.graph.initializer if list(one.dims) == [4, 2] or list(one.dims) == [2, 4]
    ]
    value = numpy_helper.to_array(weight)
    scale = np.float32(np.abs(value).max() / 127)
    model.graph.initializer.remove(weight)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.round(value / scale).astype(np.int8), "stored"),
            numpy_helper.from_array(np.array(scale), "scale"),
            helper.make_tensor("zero", TensorProto.INT8, [], [0]),
        ]
    )
    node = helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], [weight.name])
    model.graph.node.insert(0, node)
    made = climb(Foreign(model, spec.Source(file="net.onnx", sha256="0" * 64)), Choices(), tmp_path)
    assert made.kind == "chunk"
    assert made.difference <= 1e-6
    with torch.no_grad():
        expected = module(torch.from_numpy(made.examples[0].inputs)[None]).numpy()[0]
    np.testing.assert_allclose(made.examples[0].outputs, expected[list(made.examples[0].steps)], atol=1e-2)
