"""service.models.samples and service.models.runs: sequences to try a version with, however they are run."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.contract import spec
from service.errors import ModelFailure, ModelRefused
from service.models.checks import runs_of
from service.models.runs import Runs
from service.models.samples import Samples
from service.runtime import Runtime, WholeRuntime
from tests import contract2
from tests.contract2 import BEGUN, BOTH_WAYS, EQUAL, GRAPH, ODD, POOLED, TAGS, WINDOWED, initial_of
from tests.contract2_graphs import Net

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    for net in (BEGUN, BOTH_WAYS, EQUAL, ODD, POOLED, TAGS, WINDOWED):
        contract2.export(net, folder)
    return folder


class Zeros:
    """An init graph that gives zeros for a state."""

    def run(self, inputs: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:  # noqa: ARG002
        return {"layer0.h": np.zeros((1, 6), np.float32)}


def loaded(exported: Path, net: Net) -> tuple[Runs, Samples]:
    model, _, files = spec.read_version(exported / net.name / "1")
    samples = Samples(model, Zeros() if net.init else None)
    if net.whole:
        return runs_of(model, WholeRuntime(files[GRAPH], "cpu", 1), samples), samples
    pairs = [(one.input, one.output) for one in model.network.states]
    return runs_of(model, Runtime(files[GRAPH], pairs, "cpu", 1), samples), samples


@pytest.fixture(scope="module")
def several(exported: Path) -> dict[str, tuple[Runs, Samples]]:
    return {net.name: loaded(exported, net) for net in (ODD, TAGS, BOTH_WAYS, POOLED, EQUAL)}


@pytest.mark.parametrize("net", [ODD, TAGS, BOTH_WAYS, POOLED], ids=lambda net: net.name)
@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, seed=SEEDS)
def test_sequence_has_the_same_bits_alone_and_in_any_batch(
    several: dict[str, tuple[Runs, Samples]], net: Net, lengths: list[int], seed: int
) -> None:
    """Whatever the cuts in time of a chunk cell, and the garbage behind the ends of a whole network."""
    runs, samples = several[net.name]
    random = np.random.default_rng(seed)
    batch = [samples.draw(random, length) for length in lengths]
    for one, found in zip(batch, runs.together(batch, random), strict=True):
        for alone in runs.alone(one):
            np.testing.assert_array_equal(found.outputs, alone.outputs)
            for state, expected in zip(found.state, alone.state, strict=True):
                np.testing.assert_array_equal(state, expected)
        assert len(found.outputs) == (1 if net is POOLED else len(one.inputs))


@given(lengths=LENGTHS, seed=SEEDS)
def test_samples_are_like_the_golden_examples(
    several: dict[str, tuple[Runs, Samples]], lengths: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    for length in lengths:
        tokens = several[TAGS.name][1].draw(random, length).inputs
        assert tokens.dtype == np.int64
        assert tokens.shape == (length,)
        assert ((tokens >= 0) & (tokens < TAGS.size)).all()
        features = several[ODD.name][1].draw(random, length).inputs
        assert features.dtype == np.float32
        assert features.shape == (length, ODD.size)
        assert np.abs(features).max() < 10


@given(steps=st.integers(1, 50), seed=SEEDS)
def test_garbage_is_finite_and_within_the_vocabulary(
    several: dict[str, tuple[Runs, Samples]], steps: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    tokens = several[TAGS.name][1].garbage(random, steps)
    assert ((tokens >= 0) & (tokens < TAGS.size)).all()
    assert len(tokens) == steps
    features = several[ODD.name][1].garbage(random, steps)
    assert features.shape == (steps, ODD.size)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_garbage_is_sometimes_louder_than_any_example(several: dict[str, tuple[Runs, Samples]]) -> None:
    samples = several[BOTH_WAYS.name][1]
    loudest = max(float(np.abs(one.inputs).max()) for one in samples.golden)
    random = np.random.default_rng(0)
    peaks = [float(np.abs(samples.garbage(random, 20)).max()) for _ in range(20)]
    assert min(peaks) <= loudest < 5 * loudest < max(peaks)


def test_samples_of_a_window_are_whole_windows(exported: Path) -> None:
    samples = loaded(exported, WINDOWED)[1]
    random = np.random.default_rng(0)
    assert {len(samples.draw(random, length).inputs) for length in (1, 5, 30)} == {8}


def test_numbers_near_the_largest_one_stay_finite(exported: Path) -> None:
    described = json.loads((exported / ODD.name / "1" / spec.SPEC_FILE).read_text())
    described["golden"][0]["features"][0] = [3e38, -3e38, 3e38, 0.0]
    samples = Samples(spec.parse_spec(json.dumps(described)), None)
    random = np.random.default_rng(0)
    for _ in range(20):
        assert np.isfinite(samples.garbage(random, 5)).all()
        assert np.isfinite(samples.draw(random, 5).inputs).all()


def test_states_start_with_what_the_init_graph_gives_and_else_with_their_constants(exported: Path) -> None:
    model = spec.read_version(exported / BEGUN.name / "1")[0]
    seen = []

    class Noted(Zeros):
        def run(self, inputs: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
            seen.append(inputs)
            return {"layer0.h": np.full((1, 6), 0.5, np.float32)}

    [first, *_] = Samples(model, Noted()).golden
    assert [row.tolist() for row in first.start] == [[0.5] * 6, *[[0.0] * 6] * 3]
    expected = {name: values[None] for name, values in initial_of(BEGUN, 0).items()}
    np.testing.assert_equal(seen[0], expected)


def test_init_graph_that_fails_refuses_the_version(exported: Path) -> None:
    model = spec.read_version(exported / BEGUN.name / "1")[0]

    class Failing(Zeros):
        def run(self, inputs: object) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:  # noqa: ARG002
            raise ModelFailure("onnxruntime failed: no node")

    with pytest.raises(ModelRefused, match=r"check 'init' failed: .* found onnxruntime failed: no node"):
        Samples(model, Failing())
