"""service.models.invariance: what is measured, whatever is claimed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from structlog.testing import capture_logs

from service.contract import spec
from service.errors import ModelFailure, ModelRefused
from service.models.invariance import VARYING_OPERATORS, is_batch_invariant
from service.models.runs import ChunkRuns, Trace
from service.models.samples import Sample, Samples
from service.runtime import Runtime
from tests import contract2, tiny
from tests.contract2 import ACTIVITY, GRAPH, ODD, TAGS, VANILLA
from tests.contract2_graphs import Net
from tests.service.builders import edit_graph, load_repository, spec_of

# Small models: batches are as long as they get.
STEPS_PER_SECOND = 1e6


def loaded(folder: Path) -> tuple[spec.ModelSpec, Runtime, Samples]:
    model, _, files = spec.read_version(folder)
    pairs = [(one.input, one.output) for one in model.network.states]
    return model, Runtime(files[GRAPH], pairs, "cpu", 1), Samples(model, None)


def is_invariant(folder: Path) -> bool:
    model, runtime, samples = loaded(folder)
    return is_batch_invariant(runtime, ChunkRuns(model, runtime), samples, STEPS_PER_SECOND)


def name_of(value: object) -> str:
    return value.name if isinstance(value, Net) else str(value)


@pytest.mark.parametrize(
    ("net", "is_same"), [(ACTIVITY, True), (TAGS, True), (ODD, True), (VANILLA, False)], ids=name_of
)
def test_lstm_and_gru_have_the_same_bits_and_the_vanilla_kernel_has_not(
    tmp_path: Path, net: Net, is_same: bool
) -> None:
    assert is_invariant(contract2.export(net, tmp_path)) is is_same


class Faulty:
    """Runs whose outputs are another sequence's, or other bits, in batches of some sizes."""

    needs_equal = False

    def __init__(self, rows: int, change: float) -> None:
        self._rows, self._change = rows, np.float32(change)
        self.sizes: list[int] = []

    def alone(self, sample: Sample, *, is_stepped: bool = True) -> list[Trace]:  # noqa: ARG002
        return [self._trace(sample)]

    def together(self, samples: Sequence[Sample], random: np.random.Generator) -> list[Trace]:  # noqa: ARG002
        self.sizes.append(len(samples))
        traces = [self._trace(sample) for sample in samples]
        if len(samples) == self._rows:
            traces = [trace._replace(outputs=trace.outputs * self._change) for trace in traces]
        return traces

    @staticmethod
    def _trace(sample: Sample) -> Trace:
        return Trace(sample.inputs[:, :1] + np.float32(1), sample.start)


class Silent:
    """A session without an operator that is known to vary."""

    operators = frozenset({"LSTM"})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return loaded(contract2.export(ACTIVITY, tmp_path_factory.mktemp("exported")))[2]


def measured(runs: Any, samples: Samples, **more: Any) -> bool:
    session: Any = Silent()
    return is_batch_invariant(session, runs, samples, STEPS_PER_SECOND, **more)


@pytest.mark.parametrize("rows", [2, 3, 5, 7, 16, 33, 48, 64])
def test_last_bit_that_differs_in_a_batch_of_any_size_is_found(samples: Samples, rows: int) -> None:
    assert measured(Faulty(rows, 1.0), samples)
    assert not measured(Faulty(rows, 1.0 + 2.0**-23), samples)


def test_measurement_ends_in_time_after_the_largest_batch_and_one_of_long_rows(samples: Samples) -> None:
    """A clock that says that each batch takes a second."""
    seconds = iter(range(100))
    runs = Faulty(0, 1.0)
    assert measured(runs, samples, clock=lambda: float(next(seconds)))
    assert runs.sizes == [64, 3]


def test_bits_that_depend_on_the_longest_row_of_a_batch_are_found(samples: Samples) -> None:
    class Long(Faulty):
        def together(self, samples: Sequence[Sample], random: np.random.Generator) -> list[Trace]:
            self._rows = len(samples) if max(len(one.inputs) for one in samples) > 64 else 0
            return super().together(samples, random)

    assert not measured(Long(0, 1.0 + 2.0**-23), samples)


def test_graph_that_is_too_slow_for_long_rows_is_not_said_to_be_invariant(samples: Samples) -> None:
    session: Any = Silent()
    runs: Any = Faulty(0, 1.0)
    assert is_batch_invariant(session, runs, samples, 100.0)
    assert not is_batch_invariant(session, runs, samples, 50.0)


def test_sequences_get_shorter_where_a_graph_is_slow(samples: Samples) -> None:
    session: Any = Silent()
    lengths: list[int] = []

    class Noted(Faulty):
        def together(self, samples: Sequence[Sample], random: np.random.Generator) -> list[Trace]:
            lengths.append(max(len(one.inputs) for one in samples))
            return super().together(samples, random)

    runs: Any = Noted(0, 1.0)
    assert is_batch_invariant(session, runs, samples, 100.0)
    assert lengths[0] == 2
    lengths.clear()
    assert is_batch_invariant(session, runs, samples, 1e6)
    assert lengths[0] == 16


def test_graph_that_fails_on_random_sequences_is_refused(samples: Samples) -> None:
    class Failing(Faulty):
        def together(self, *_: Any) -> list[Trace]:
            raise ModelFailure("onnxruntime failed")

    with pytest.raises(
        ModelRefused, match=r"check 'invariance' failed: .*random sequences, found onnxruntime"
    ):
        measured(Failing(0, 1.0), samples)


@pytest.mark.parametrize("operator", sorted(VARYING_OPERATORS))
def test_known_operators_are_not_measured(samples: Samples, operator: str) -> None:
    session: Any = type("Session", (), {"operators": frozenset({operator, "Gather"})})
    runs: Any = Faulty(0, 1.0)
    assert not is_batch_invariant(session, runs, samples, STEPS_PER_SECOND)
    assert runs.sizes == []


def add_batch_statistic(weight: float) -> Any:
    """Return an edit that adds a little of the batch's mean to each output, far below the tolerance."""

    def change(model: Any) -> None:
        for node in model.graph.node:
            node.output[:] = ["own" if one == "output" else one for one in node.output]
        model.graph.initializer.append(numpy_helper.from_array(np.array(weight, np.float32), "little"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1),
                helper.make_node("Mul", ["mean", "little"], ["share"]),
                helper.make_node("Add", ["own", "share"], ["output"]),
            ]
        )

    return change


def test_rows_that_change_the_last_bits_of_others_are_found_in_a_real_graph(tmp_path: Path) -> None:
    folder = contract2.export(ACTIVITY, tmp_path)
    edit_graph(folder, add_batch_statistic(1e-6))
    assert not is_invariant(folder)


@pytest.mark.parametrize("is_claimed", [True, False])
@pytest.mark.parametrize("weight", [0.0, 1e-6])
def test_what_is_measured_is_served_and_a_wrong_claim_is_logged(
    tmp_path: Path, is_claimed: bool, weight: float
) -> None:
    folder, _ = tiny.export_classifier(tmp_path)
    if weight:
        edit_graph(folder, add_batch_statistic(weight))
    variants = spec_of(folder)["variants"]
    variants["fp32"]["batch_invariant"] = is_claimed
    spec_of(folder, variants=variants)
    with capture_logs() as logs:
        repository = load_repository(tmp_path, slots=8, chunk=4)
    repository.stop()
    served = repository.table.get(folder.parent.name, 0).served
    assert served is not None
    assert served.batch_invariant is (not weight)
    warnings = [one for one in logs if "batch_invariant" in one["event"]]
    assert len(warnings) == (1 if is_claimed and weight else 0)


def scan_graph(model: Any) -> None:
    """Put a loop in the place of an LSTM: h = tanh(0.5 h + largest x) within lengths, and c as it was."""
    graph = model.graph
    del graph.node[:]
    values: dict[str, NDArray[Any]] = {
        "shape.flat.h": np.array([-1, 16], np.int64),
        "axis.last": np.array([1], np.int64),
        "half": np.array(0.5, np.float32),
        "first": np.array(0, np.int32),
        "one": np.array(1, np.int32),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    body = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["x.max"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["h", "half"], ["h.half"]),
            helper.make_node("Add", ["h.half", "x.max"], ["h.raw"]),
            helper.make_node("Tanh", ["h.raw"], ["h.moved"]),
            helper.make_node("Less", ["step", "lengths.column"], ["is_valid"]),
            helper.make_node("Where", ["is_valid", "h.moved", "h"], ["h.next"]),
            helper.make_node("Add", ["step", "one"], ["step.next"]),
            helper.make_node("Identity", ["h.next"], ["y"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 16]),
            helper.make_tensor_value_info("step", TensorProto.INT32, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor_value_info("h.next", TensorProto.FLOAT, ["batch", 16]),
            helper.make_tensor_value_info("step.next", TensorProto.INT32, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16]),
        ],
    )
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["lengths", "axis.last"], ["lengths.column"]),
            helper.make_node(
                "Scan",
                ["layer0.h", "first", "input"],
                ["layer0.h.next", "steps", "every"],
                body=body,
                num_scan_inputs=1,
                scan_input_axes=[1],
                scan_output_axes=[1],
            ),
            helper.make_node("Identity", ["layer0.c"], ["layer0.c.next"]),
            helper.make_node("Reshape", ["every", "shape.flat.h"], ["hidden.flat"]),
            helper.make_node("Gather", ["hidden.flat", "wanted"], ["hidden.wanted"], axis=0),
            helper.make_node("Gemm", ["hidden.wanted", "head.weight", "head.bias"], ["output"], transB=1),
        ]
    )


def test_recurrence_in_a_loop_is_judged_by_measurement_alone(tmp_path: Path) -> None:
    folder = contract2.export(ACTIVITY, tmp_path)
    edit_graph(folder, scan_graph)
    model, runtime, samples = loaded(folder)
    assert "Scan" in runtime.operators
    assert not runtime.operators & VARYING_OPERATORS
    started = time.perf_counter()
    assert is_batch_invariant(runtime, ChunkRuns(model, runtime), samples, STEPS_PER_SECOND)
    assert time.perf_counter() - started < 10
    edit_graph(folder, add_batch_statistic(1e-6))
    assert not is_invariant(folder)
