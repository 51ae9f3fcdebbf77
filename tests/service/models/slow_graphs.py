"""Graphs that behave in the golden examples and loop or grow in wider ticks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec


def loop_above(rows: int, trips: int = 1 << 40) -> Callable[[onnx.ModelProto], None]:
    """Return an edit that makes a graph loop `trips` times in runs of more than `rows` rows."""

    def change(model: onnx.ModelProto) -> None:
        counted = [
            helper.make_node("Shape", [spec.LENGTHS], ["slow.shape"]),
            helper.make_node("Greater", ["slow.shape", "slow.rows"], ["slow.is_wide"]),
            helper.make_node("Cast", ["slow.is_wide"], ["slow.factor"], to=TensorProto.INT64),
            helper.make_node("Mul", ["slow.factor", "slow.trips"], ["slow.times"]),
            helper.make_node("Squeeze", ["slow.times"], ["slow.count"]),
            helper.make_node("Loop", ["slow.count", "", "slow.zero"], ["slow.sum"], body=_body()),
        ]
        _add_to_output(model, counted, "slow.sum", {"rows": [rows], "trips": [trips]})

    return change


def grow_above(rows: int, values: int) -> Callable[[onnx.ModelProto], None]:
    """Return an edit that makes a graph fill `values` float32 in runs of more than `rows` rows."""

    def change(model: onnx.ModelProto) -> None:
        grown = [
            helper.make_node("Shape", [spec.LENGTHS], ["slow.shape"]),
            helper.make_node("Greater", ["slow.shape", "slow.rows"], ["slow.is_wide"]),
            helper.make_node("Cast", ["slow.is_wide"], ["slow.factor"], to=TensorProto.INT64),
            helper.make_node("Mul", ["slow.factor", "slow.values"], ["slow.times"]),
            helper.make_node("Max", ["slow.times", "slow.one"], ["slow.size"]),
            helper.make_node("ConstantOfShape", ["slow.size"], ["slow.filled"]),
            helper.make_node("Exp", ["slow.filled"], ["slow.grown"]),
            helper.make_node("ReduceMin", ["slow.grown"], ["slow.sum"], keepdims=0),
        ]
        _add_to_output(model, grown, "slow.sum", {"rows": [rows], "values": [values], "one": [1]}, 1.0)

    return change


def recurrence_in_the_head(model: onnx.ModelProto) -> None:
    """Add a layer that runs a step for each wanted output; onnxruntime ends the process at one of no rows."""
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in (("head.W", (1, 4, 1)), ("head.R", (1, 4, 1)))
    ]
    model.graph.initializer.extend(weights)
    nodes = [
        helper.make_node("Cast", [spec.WANTED], ["head.wanted"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["head.wanted", "slow.head"], ["head.X"]),
        helper.make_node("LSTM", ["head.X", "head.W", "head.R"], ["", "head.Y_h"], hidden_size=1),
        helper.make_node("ReduceSum", ["head.Y_h"], ["head.sum"], keepdims=0),
    ]
    _add_to_output(model, nodes, "head.sum", {"head": [1, -1, 1]})


def _body() -> onnx.GraphProto:
    """Return the body of a loop that adds zero to a float and goes on."""
    nodes = [
        helper.make_node("Identity", ["slow.go"], ["slow.go_on"]),
        helper.make_node("Mul", ["slow.before", "slow.before"], ["slow.after"]),
    ]
    inputs = [
        helper.make_tensor_value_info("slow.trip", TensorProto.INT64, []),
        helper.make_tensor_value_info("slow.go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("slow.before", TensorProto.FLOAT, []),
    ]
    outputs = [
        helper.make_tensor_value_info("slow.go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("slow.after", TensorProto.FLOAT, []),
    ]
    return helper.make_graph(nodes, "body", inputs, outputs)


def _add_to_output(
    model: onnx.ModelProto,
    nodes: list[onnx.NodeProto],
    name: str,
    sizes: dict[str, list[int]],
    less: float = 0.0,
) -> None:
    """Append nodes, and add the scalar `name`, less a constant that it equals, to the graph's output."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["slow.output" if one == spec.OUTPUT else one for one in node.output]
    values: dict[str, NDArray[Any]] = {key: np.array(value, np.int64) for key, value in sizes.items()}
    values |= {"zero": np.array(0, np.float32), "less": np.array(less, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(value, f"slow.{key}") for key, value in values.items())
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Sub", [name, "slow.less"], ["slow.nothing"]))
    graph.node.append(helper.make_node("Add", ["slow.output", "slow.nothing"], [spec.OUTPUT]))
