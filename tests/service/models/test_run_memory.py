"""service.models.run_memory, and the memory that a whole network's graph gives back."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from service.models.run_memory import max_steps_of
from tests import contract2
from tests.contract2_graphs import Layer
from tests.service.builders import load_repository

WIDE = replace(contract2.BOTH_WAYS, name="wide", layers=(Layer("lstm", 64),))
STEP_BYTES = 4 * (3 + 2 * 6 * 64 + 2 * 3)  # features, gates and outputs of both directions, the head
STEPS = 40_000
ROOT = Path(__file__).parents[3]


def test_steps_of_a_whole_network_take_a_sixteenth_of_the_memory() -> None:
    model = contract2.model_of(contract2.Reference(WIDE))
    assert max_steps_of(model, 16 * 1000 * STEP_BYTES) == 1000
    assert max_steps_of(model, 0) == 1


def test_limits_of_a_version_are_those_of_the_memory_where_that_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for net in (WIDE, contract2.ACTIVITY):
        contract2.export(net, tmp_path)
    monkeypatch.setattr("service.models.loading.memory_limit", lambda: 16 * 1000 * STEP_BYTES)
    repository = load_repository(tmp_path, engines=1)
    repository.stop()
    found = {}
    for name in ("wide", "activity"):
        served = repository.table.get(name, 0).served
        assert served is not None
        assert served.sequences is not None
        found[name] = served.sequences.limits.observations
    assert found == {"wide": 1000, "activity": 10_000}


def test_networks_that_are_cut_in_time_or_have_a_window_take_sequences_of_any_length() -> None:
    for net in (contract2.ACTIVITY, contract2.WINDOWED):
        assert max_steps_of(contract2.model_of(contract2.Reference(net)), 1) == sys.maxsize


def test_memory_of_a_long_run_is_given_back() -> None:
    """With onnxruntime's own memory it would keep about as much as the bound counts.

    It is measured in a process of its own: in one with a gigabyte of other tests' memory, what the C library
    keeps of it depends on them.
    """
    run = subprocess.run(
        [sys.executable, "-c", _KEPT], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert int(run.stdout) < STEPS * STEP_BYTES / 4


_KEPT = f"""
import numpy as np
from service.memory import resident_bytes
from service.runtime import WholeRuntime
from tests.contract2_graphs import whole_graph
from tests.service.models.test_run_memory import WIDE

runtime = WholeRuntime(whole_graph(WIDE).SerializeToString(), "cpu", 1)
inputs, lengths = np.zeros((1, {STEPS}, 3), np.float32), np.array([{STEPS}], np.int32)
runtime.run(inputs[:, :8], np.array([8], np.int32))
before = resident_bytes()
runtime.run(inputs, lengths)
print(resident_bytes() - before)
"""
