"""service.load_errors: sentences on graphs that onnxruntime does not load, whose texts are its own."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import ModelRefused
from service.load_errors import describe
from service.runtime import Runtime

HIDDEN, FEATURES = 4, 3


def graph_of(*nodes: onnx.NodeProto, opset: int = 17, ir_version: int = 8, domain: str = "") -> bytes:
    """A graph of these nodes, from input to output, with the weights of an LSTM."""
    weights = [
        numpy_helper.from_array(np.zeros((1, 4 * HIDDEN, width), np.float32), name)
        for name, width in (("W", FEATURES), ("R", HIDDEN))
    ]
    entered = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["time", "batch", FEATURES])
    left = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    made = helper.make_graph(nodes, "graph", [entered], [left], weights)
    return helper.make_model(made, opset_imports=imports, ir_version=ir_version).SerializeToString()


def lstm(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("LSTM", ["input", "W", "R"], ["output"], hidden_size=HIDDEN, **attributes)


def external() -> bytes:
    """A graph whose weight is in another file."""
    model = onnx.load_from_string(graph_of(lstm()))
    for weight in model.graph.initializer:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value="weights.bin")
    return model.SerializeToString()


IDENTITY = helper.make_node("Identity", ["input"], ["output"])
GRAPHS = [
    pytest.param(
        graph_of(
            helper.make_node("Attend", ["input"], ["output"], domain="com.example"), domain="com.example"
        ),
        "operators of ONNX or onnxruntime alone, found Attend of com.example, a custom operator",
        id="custom operator",
    ),
    pytest.param(
        graph_of(helper.make_node("Attend", ["input"], ["output"])),
        "operators of ONNX or onnxruntime alone, found Attend, not in opset 17",
        id="unknown operator",
    ),
    pytest.param(
        graph_of(helper.make_node("Attend", ["input"], ["output"], domain="com.example")),
        "an opset import of each domain, found none of com.example",
        id="domain that is not imported",
    ),
    pytest.param(
        graph_of(IDENTITY, opset=60),
        "an opset that this onnxruntime has, found opset 60: export the graph with a lower one",
        id="opset of the future",
    ),
    pytest.param(
        graph_of(IDENTITY, ir_version=99),
        "IR version 14 or lower, found 99: save the graph with a lower ir_version",
        id="IR version of the future",
    ),
    pytest.param(
        graph_of(lstm(layout=1)),
        "recurrent nodes of layout 0, time first, found layout 1, which onnxruntime does not run",
        id="batch first",
    ),
    pytest.param(
        graph_of(lstm(activations=["Swish", "Tanh", "Tanh"])),
        "activations of Affine, Relu, LeakyRelu, ThresholdedRelu, Tanh, ScaledTanh, Sigmoid, HardSigmoid, "
        "Elu, Softsign, Softplus, found Swish",
        id="unknown activation",
    ),
    pytest.param(
        external(),
        "a graph that holds its weights, found external data: "
        "save the graph with its weights in the one file",
        id="external data",
    ),
    pytest.param(
        b"no graph",
        "a graph that onnxruntime loads, found a file that is no ONNX graph, or a part of one",
        id="no graph",
    ),
    pytest.param(
        b"",
        "a graph that onnxruntime loads, found a file that is no ONNX graph, or a part of one",
        id="empty file",
    ),
]


@pytest.mark.parametrize(("graph", "sentence"), GRAPHS)
def test_refusal_says_what_is_wrong_with_the_graph(
    graph: bytes, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelRefused) as refused:
        Runtime(graph, (), "cpu", 1)
    assert str(refused.value) == f"check 'graph' failed: expected {sentence}"
    capfd.readouterr()  # onnxruntime prints some of them


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: "
            "/onnxruntime_src/onnxruntime/core/x.cc:12 the weights\n are odd",
            "the weights are odd",
        ),
        ("x" * 1000, "x" * 300 + "..."),
        ("std::bad_alloc", "std::bad_alloc"),
    ],
)
def test_unknown_text_is_shown_in_one_line_of_bounded_length(text: str, found: str) -> None:
    assert describe(text) == ("a graph that onnxruntime loads", found)
