"""benchmarks.rows.infer_stream."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.rows.infer_stream import FEATURES, HIDDEN, StepByStep, export_steps, messages_of
from seqserve.v1 import sequences_pb2 as pb

VALUES = np.random.default_rng(1).normal(size=(3, 8, FEATURES)).astype(np.float32)


def test_step_by_step_gives_the_outputs_of_the_whole(tmp_path: Path) -> None:
    model = export_steps(tmp_path)
    session = ort.InferenceSession(str(model.graph()), providers=["CPUExecutionProvider"])
    states = {before: np.zeros((3, HIDDEN), np.float32) for before, _ in model.state_pairs}
    whole = {"input": VALUES, "lengths": np.full(3, 8, np.int32), "wanted": np.array([7, 15, 23])}
    [expected] = session.run(["output"], whole | states)
    np.testing.assert_allclose(StepByStep(model).run(VALUES), expected, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4])
def test_messages_bring_each_step_once_and_in_order(steps: int) -> None:
    messages = [pb.InferStreamRequest.FromString(data) for data in messages_of(VALUES, steps)]
    assert [bool(one.model) for one in messages] == [True] * 3 + [False] * (len(messages) - 3)
    for number, values in enumerate(VALUES):
        own = [one.input.steps.values for one in messages if one.id == str(number)]
        assert len(own) == 8 // steps
        np.testing.assert_array_equal(np.concatenate(own), values.ravel())
