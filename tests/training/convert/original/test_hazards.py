"""Networks that do something else at one token, threshold or length, which random sequences hardly meet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.contract import spec
from training.convert.converted import Converted
from training.convert.foreign import Foreign, Refused
from training.convert.ladder import climb
from training.convert.options import Choices

FEATURES, WIDTH, VOCABULARY = 3, 8, 1000


class Graph:
    """Collects the nodes of a small graph whose weights are random, and the same each time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def constant(self, value: object, dtype: type = np.int64) -> str:
        name = f"constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def weights(self, *sizes: int) -> str:
        return self.constant(self._rng.normal(0, 0.5, sizes), np.float32)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operator}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def gru(self, data: str, lengths: str = "", direction: str = "forward") -> tuple[str, str]:
        """Return Y, (T, directions, B, H), and Y_h, (directions, B, H)."""
        sides, size = 1 + (direction != "forward"), FEATURES
        first = self.node("Transpose", data, perm=[1, 0, 2])
        weights = [self.weights(sides, 3 * WIDTH, width) for width in (size, WIDTH)]
        inputs = [first, *weights, "", lengths] if lengths else [first, *weights]
        self.nodes.append(
            helper.make_node("GRU", inputs, ["Y", "Y_h"], hidden_size=WIDTH, direction=direction)
        )
        return "Y", "Y_h"

    def every_step(self, outputs: str, sides: int = 1) -> str:
        """Return Y as (B, T, H)."""
        rows = self.node("Transpose", outputs, perm=[2, 0, 1, 3])
        return self.node("Reshape", rows, self.constant([0, 0, sides * WIDTH]))

    def steps(self, data: str) -> str:
        """Return the number of time steps, a scalar."""
        return self.node("Gather", self.node("Shape", data), self.constant(1))

    def model(self, output: str, is_tokens: bool) -> onnx.ModelProto:
        kind, axes = (TensorProto.INT64, []) if is_tokens else (TensorProto.FLOAT, [FEATURES])
        graph = helper.make_graph(
            [*self.nodes, helper.make_node("Identity", [output], ["output"])],
            "graph",
            [helper.make_tensor_value_info("data", kind, ["batch", "time", *axes])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def both_ends(graph: Graph, last: str) -> str:
    """Return Y_h of two directions as (B, 2 * H)."""
    rows = graph.node("Transpose", last, perm=[1, 0, 2])
    return graph.node("Reshape", rows, graph.constant([0, 2 * WIDTH]))


def padding_counts(graph: Graph) -> str:
    """Return the last step's output of a network that counts the tokens which are no padding."""
    table = graph.node("Gather", graph.weights(VOCABULARY, FEATURES), "data")
    is_word = graph.node("Not", graph.node("Equal", "data", graph.constant(0)))
    words = graph.node("Cast", is_word, to=TensorProto.INT32)
    lengths = graph.node("ReduceSum", words, graph.constant([1]), keepdims=0)
    return graph.node("Squeeze", graph.gru(table, lengths)[1], graph.constant([0]))


def token_seen(graph: Graph) -> str:
    """Return every step's output of a network that adds how often token 777 is in the whole sequence."""
    outputs = graph.every_step(
        graph.gru(graph.node("Gather", graph.weights(VOCABULARY, FEATURES), "data"))[0]
    )
    found = graph.node("Cast", graph.node("Equal", "data", graph.constant(777)), to=TensorProto.FLOAT)
    count = graph.node("ReduceSum", found, graph.constant([1]), keepdims=1)
    return graph.node("Add", outputs, graph.node("Unsqueeze", count, graph.constant([2])))


def zero_rows_count(graph: Graph) -> str:
    """Return the last step's output of a network for which a step of zeros is padding."""
    total = graph.node("ReduceSum", graph.node("Abs", "data"), graph.constant([2]), keepdims=0)
    is_step = graph.node("Greater", total, graph.constant(0, np.float32))
    steps = graph.node("Cast", is_step, to=TensorProto.INT32)
    lengths = graph.node("ReduceSum", steps, graph.constant([1]), keepdims=0)
    return graph.node("Squeeze", graph.gru("data", lengths)[1], graph.constant([0]))


def threshold(graph: Graph) -> str:
    """Return every step's output of a network that adds the largest feature of all steps above 600."""
    above = graph.node("Relu", graph.node("Sub", "data", graph.constant(600, np.float32)))
    largest = graph.node("ReduceMax", above, axes=[1, 2], keepdims=1)
    return graph.node("Add", graph.every_step(graph.gru("data")[0]), largest)


def clipped(graph: Graph) -> str:
    """Return the last step's output of a network that takes the first 1,100 steps alone."""
    bounds = [graph.constant([number]) for number in (0, 1100, 1)]
    last = graph.gru(graph.node("Slice", "data", *bounds), direction="bidirectional")[1]
    return graph.node(
        "Reshape", graph.node("Transpose", last, perm=[1, 0, 2]), graph.constant([0, 2 * WIDTH])
    )


def long_ones_differ(graph: Graph) -> str:
    """Return every step's output of a network that adds the steps beyond 40 to each of them."""
    steps = graph.node("Cast", graph.steps("data"), to=TensorProto.FLOAT)
    beyond = graph.node("Relu", graph.node("Sub", steps, graph.constant(40, np.float32)))
    outputs = graph.every_step(graph.gru("data", direction="bidirectional")[0], sides=2)
    return graph.node("Add", outputs, beyond)


def positions(graph: Graph) -> str:
    """Return the last step's output of a network with a table of 512 positions."""
    places = graph.node("Range", graph.constant(0), graph.steps("data"), graph.constant(1))
    table = graph.node("Gather", graph.weights(512, FEATURES), places)
    last = graph.gru(graph.node("Add", "data", table), direction="bidirectional")[1]
    return graph.node(
        "Reshape", graph.node("Transpose", last, perm=[1, 0, 2]), graph.constant([0, 2 * WIDTH])
    )


def noise(graph: Graph) -> str:
    """Return the last step's output of a network that rarely adds something at random."""
    last = graph.node("Squeeze", graph.gru("data")[1], graph.constant([0]))
    drawn = graph.node("RandomUniformLike", last)
    rare = graph.node("Greater", drawn, graph.constant(0.9999, np.float32))
    return graph.node("Add", last, graph.node("Cast", rare, to=TensorProto.FLOAT))


def converted(make: Callable[[Graph], str], is_tokens: bool, folder: Path) -> Converted:
    graph = Graph()
    model = graph.model(make(graph), is_tokens)
    return climb(Foreign(model, spec.Source(file="net.onnx", sha256="0" * 64)), Choices(), folder)


@pytest.mark.parametrize(
    ("make", "is_tokens"),
    [
        (padding_counts, True),
        (zero_rows_count, False),
        (threshold, False),
        (clipped, False),
        (long_ones_differ, False),
        (positions, False),
    ],
)
def test_network_that_differs_rarely_is_served_at_equal_lengths_alone(
    make: Callable[[Graph], str], is_tokens: bool, tmp_path: Path
) -> None:
    made = converted(make, is_tokens, tmp_path)
    assert (made.kind, made.padding) == ("whole", "none")


def test_token_that_the_graph_names_is_no_chunk(tmp_path: Path) -> None:
    made = converted(token_seen, True, tmp_path)
    assert made.kind == "whole"
    assert any(rung == "chunk" and "unusual values" in why for rung, why in made.tried)


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"random numbers \(RandomUniformLike\)"):
        converted(noise, False, tmp_path)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_recurrent_weights_of_other_types_are_refused(kind: type, tmp_path: Path) -> None:
    graph = Graph()
    model = graph.model(graph.node("Squeeze", graph.gru("data")[1], graph.constant([0])), is_tokens=False)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(kind), tensor.name))
    with pytest.raises(Refused, match="expected weights of 32-bit floats"):
        climb(Foreign(model, spec.Source(file="net.onnx", sha256="0" * 64)), Choices(), tmp_path)
