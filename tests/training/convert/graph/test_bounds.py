"""Bounds on what a hostile file makes a conversion do."""

import resource
import signal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.convert.foreign import Refused
from training.convert.graph.bounds import bounded_memory, bounded_run, check_expansion
from training.errors import TrainingError
from training.interrupts import TERMINATED, exit_at_termination


def functions(calls: list[list[str]]) -> onnx.ModelProto:
    """Return a model that calls the first of some functions, each of which calls others."""
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="own")], "graph", [], [])
    made = helper.make_model(graph)
    for index, names in enumerate(calls):
        nodes = [helper.make_node(name, ["x"], ["y"], domain="own") for name in names]
        made.functions.append(helper.make_function("own", f"f{index}", ["x"], ["y"], nodes, []))
    return made


def test_functions_that_double_are_refused() -> None:
    doubling = [[f"f{index + 1}"] * 2 for index in range(60)]
    with pytest.raises(Refused, match=f"at most 20000 nodes with its functions, found {2**60}"):
        check_expansion(functions(doubling))
    check_expansion(functions(doubling[:10]))


@pytest.mark.parametrize("calls", [[["f0"]], [["f1"], ["f2"], ["f0"]]])
def test_function_that_calls_itself_is_refused(calls: list[list[str]]) -> None:
    with pytest.raises(Refused, match="calls itself"):
        check_expansion(functions(calls))


def test_endless_loop_ends() -> None:
    kept = (TensorProto.BOOL, TensorProto.FLOAT)
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}.next"]) for name in ("flag", "value")],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            *(helper.make_tensor_value_info(*one, []) for one in zip(("flag", "value"), kept, strict=True)),
        ],
        [
            helper.make_tensor_value_info(f"{name}.next", kind, [])
            for name, kind in zip(("flag", "value"), kept, strict=True)
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "forever", "x"], ["y"], body=body)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(np.array(True), "forever")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    options = ort.RunOptions()
    options.log_severity_level = 4
    with (
        pytest.raises(TrainingError, match=r"more than 0\.2 seconds"),
        bounded_run(options, seconds=0.2),
    ):
        session.run(None, {"x": np.zeros((), np.float32)}, options)


def test_memory_beyond_the_bound_is_an_error_and_the_bound_goes() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(TrainingError, match=r"needs more than [0-9]+ MiB of memory"), bounded_memory():
        np.empty(1 << 40, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_termination_raises_and_the_default_returns() -> None:
    with pytest.raises(SystemExit) as ended, exit_at_termination():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == TERMINATED
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
