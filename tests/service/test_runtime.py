"""service.runtime."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_inference_collection
from onnxruntime.capi.onnxruntime_inference_collection import _graph_annotation_id

from service.contract import spec
from service.contract.network import Padding
from service.engine.cell import Shape
from service.errors import ModelFailure, ModelRefused
from service.runtime import Chunk, Runtime, WholeRuntime
from tests import tiny
from tests.bidirectional import bidirectional_graph
from tests.service.builders import GRAPH, edit_graph
from tests.service.engine.fakes import Bench, generation_of, last_of, received, score_of
from training.networks.network import Cell

VOCABULARY = len(tiny.VOCABULARY)
HIDDEN = 24


def runtime_of(folder: Path, provider: str = "cpu", threads: int = 1) -> Runtime:
    pairs = spec.parse_spec((folder / spec.SPEC_FILE).read_text()).network.states
    return Runtime(folder / GRAPH, [(pair.input, pair.output) for pair in pairs], provider, threads)


def chunk_of(tokens: NDArray[np.int64], lengths: list[int], wanted: list[int]) -> Chunk:
    rows = len(tokens)

    def state() -> list[NDArray[np.float32]]:
        return [np.zeros((rows, HIDDEN), np.float32) for _ in range(4)]

    output = np.full((len(wanted), VOCABULARY), np.nan, np.float32)
    return Chunk(tokens, np.array(lengths, np.int32), state(), np.array(wanted, np.int64), output, state())


@pytest.fixture(scope="module")
def letters(models: Path) -> Runtime:
    return runtime_of(models / "letters" / "1")


def test_signature_is_read_from_the_graph(letters: Runtime) -> None:
    assert [one.name for one in letters.inputs] == [
        "input",
        "lengths",
        "layer0.h",
        "layer0.c",
        "layer1.h",
        "layer1.c",
        "wanted",
    ]
    assert letters.outputs[0].shape == ("wanted", VOCABULARY)


def test_session_does_not_keep_the_bytes_of_its_graph(models: Path) -> None:
    """They are as large as the weights, which it has."""
    folder = models / "letters" / "1"
    graph = (folder / GRAPH).read_bytes()
    pairs = spec.parse_spec((folder / spec.SPEC_FILE).read_text()).network.states
    before = sys.getrefcount(graph)
    loaded = Runtime(graph, [(pair.input, pair.output) for pair in pairs], "cpu", 1)
    assert sys.getrefcount(graph) == before
    loaded.release()


def test_run_writes_into_the_given_arrays(letters: Runtime) -> None:
    chunk = chunk_of(np.array([[1, 2, 3], [4, 5, 0]]), [3, 2], [2, 4])
    letters.bind(chunk).run()
    assert np.isfinite(chunk.output).all()
    assert all((tensor != 0).any(axis=1).all() for tensor in chunk.after)


def test_run_leaves_the_state_before_it_unchanged(letters: Runtime) -> None:
    chunk = chunk_of(np.array([[1, 2, 3]]), [3], [2])
    letters.bind(chunk).run()
    assert all((tensor == 0).all() for tensor in chunk.state)


def test_bound_chunk_can_run_again_on_new_contents(letters: Runtime) -> None:
    chunk = chunk_of(np.array([[1, 2]]), [2], [1])
    bound = letters.bind(chunk)
    bound.run()
    first = chunk.output.copy()
    chunk.inputs[:] = [[3, 3]]
    bound.run()
    again = chunk_of(np.array([[3, 3]]), [2], [1])
    letters.bind(again).run()
    assert not np.array_equal(first, chunk.output)
    np.testing.assert_array_equal(chunk.output, again.output)


def test_run_raises_no_error_inside_onnxruntime(letters: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that onnxruntime's Python misses among the options of a run costs 50 us a run."""
    found: list[str] = []
    look_up = _graph_annotation_id

    def noted(options: ort.RunOptions) -> int:
        found.append(options.get_run_config_entry("gpu_graph_id"))  # raises where there is none
        return int(look_up(options))

    monkeypatch.setattr(onnxruntime_inference_collection, "_graph_annotation_id", noted)
    letters.bind(chunk_of(np.array([[1]]), [1], [0])).run()
    assert found == ["0"]


def test_nothing_wanted_still_advances_the_state(letters: Runtime) -> None:
    silent, asked = chunk_of(np.array([[1, 2]]), [2], []), chunk_of(np.array([[1, 2]]), [2], [0, 1])
    letters.bind(silent).run()
    letters.bind(asked).run()
    for one, other in zip(silent.after, asked.after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_past_a_row_length_do_not_count(letters: Runtime) -> None:
    padded, whole = chunk_of(np.array([[1, 2, 7, 8]]), [2], [1]), chunk_of(np.array([[1, 2]]), [2], [1])
    letters.bind(padded).run()
    letters.bind(whole).run()
    np.testing.assert_array_equal(padded.output, whole.output)
    for one, other in zip(padded.after, whole.after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_do_not_change_a_bit(models: Path) -> None:
    outputs = []
    for threads in (1, 2):
        chunk = chunk_of(np.arange(32 * 8).reshape(32, 8) % VOCABULARY, [8] * 32, list(range(32 * 8)))
        runtime_of(models / "letters" / "1", threads=threads).bind(chunk).run()
        outputs.append(chunk.output)
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.parametrize("token", [VOCABULARY, -VOCABULARY - 1, 2**40])
def test_token_outside_the_vocabulary_is_a_model_failure_that_does_not_show_it(
    letters: Runtime, token: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelFailure, match=r"onnxruntime failed: .*Gather.* idx=#") as failure:
        letters.bind(chunk_of(np.array([[1, token]]), [2], [1])).run()
    assert str(abs(token)) not in str(failure.value)
    assert capfd.readouterr().err == ""


def test_session_works_on_after_a_failure(letters: Runtime) -> None:
    with pytest.raises(ModelFailure):
        letters.bind(chunk_of(np.array([[VOCABULARY]]), [1], [0])).run()
    chunk = chunk_of(np.array([[1]]), [1], [0])
    letters.bind(chunk).run()
    assert np.isfinite(chunk.output).all()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_onnxruntime_warns_of_nothing(cell: Cell, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Loading and every kind of tick: the bar is zero warnings."""
    folder, network = tiny.export_generator(tmp_path, cell=cell)
    shape = Shape(None, VOCABULARY, (HIDDEN,) * len(network.config.state_names))
    sequences = [
        *(last_of(range(length)) for length in (1, 5, 9)),
        score_of(range(7)),
        generation_of(range(6), 12),
        generation_of([1], 3),
    ]
    Bench(3, 4, cell=runtime_of(folder), shape=shape).run(*sequences)
    assert all(received(one) for one in sequences)
    assert capfd.readouterr() == ("", "")


def test_provider_that_this_build_lacks_is_refused(models: Path) -> None:
    with pytest.raises(
        ModelRefused,
        match=r"check 'provider' failed: expected CUDAExecutionProvider, found only .*CPUExecutionProvider",
    ):
        runtime_of(models / "letters" / "1", provider="cuda")


def test_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    folder, _ = tiny.export_generator(tmp_path)
    (folder / GRAPH).write_bytes(b"no graph at all")
    with pytest.raises(ModelRefused, match="check 'graph' failed"):
        runtime_of(folder)


def test_graph_without_a_recurrent_node_is_refused(tmp_path: Path) -> None:
    folder, _ = tiny.export_generator(tmp_path)
    edit_graph(folder, forget_recurrence)
    with pytest.raises(
        ModelRefused, match="check 'placement' failed: expected a recurrent node, found none among"
    ):
        runtime_of(folder)


def forget_recurrence(model: onnx.ModelProto) -> None:
    """Leave only an Identity a state tensor and a constant output."""
    graph = model.graph
    names = [one.name.removesuffix(spec.NEXT_SUFFIX) for one in graph.output if one.name != spec.OUTPUT]
    nodes = [onnx.helper.make_node("Identity", [name], [name + spec.NEXT_SUFFIX]) for name in names]
    cast = onnx.helper.make_node("Cast", [spec.WANTED], ["wanted.float"], to=onnx.TensorProto.FLOAT)
    column = onnx.helper.make_node("Unsqueeze", ["wanted.float", "axis.1"], ["wanted.column"])
    tiled = onnx.helper.make_node("Concat", ["wanted.column"] * VOCABULARY, [spec.OUTPUT], axis=1)
    del graph.node[:]
    graph.node.extend([*nodes, cast, column, tiled])


# Whole sequences.


@pytest.fixture(scope="module", params=[True, False], ids=["pooled", "a step"])
def is_pooled(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def whole_graph(is_pooled: bool, padding: Padding = "lengths") -> bytes:
    return bidirectional_graph(6, 3, vocabulary=VOCABULARY, is_pooled=is_pooled, padding=padding)


def test_whole_sequence_has_the_same_bits_alone_and_beside_longer_ones(is_pooled: bool) -> None:
    runtime = WholeRuntime(whole_graph(is_pooled), "cpu", 1)
    lengths = np.array([9, 1, 4], np.int32)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (3, 9))
    together = runtime.run(tokens, lengths)
    assert together.dtype == np.float32
    assert together.shape == ((3, 3) if is_pooled else (3, 9, 3))
    for row, length in enumerate(lengths):
        alone = runtime.run(tokens[row : row + 1, :length], lengths[row : row + 1])
        np.testing.assert_array_equal(alone[0], together[row] if is_pooled else together[row, :length])


def test_graph_says_whether_it_takes_lengths(is_pooled: bool) -> None:
    paddings: tuple[Padding, ...] = ("lengths", "none")
    runtimes = [WholeRuntime(whole_graph(is_pooled, padding), "cpu", 1) for padding in paddings]
    assert [one.takes_lengths for one in runtimes] == [True, False]
    tokens = np.arange(8).reshape(2, 4)
    full = np.full(2, 4, np.int32)
    np.testing.assert_array_equal(runtimes[0].run(tokens, full), runtimes[1].run(tokens, None))


def test_failure_of_a_whole_run_does_not_show_what_was_said(is_pooled: bool) -> None:
    runtime = WholeRuntime(whole_graph(is_pooled), "cpu", 1)
    with pytest.raises(ModelFailure, match=r"onnxruntime failed: .*Gather.* idx=#") as failure:
        runtime.run(np.array([[1, 98765]]), np.array([2], np.int32))
    assert "98765" not in str(failure.value)


def test_terminated_graph_runs_no_whole_sequence(is_pooled: bool) -> None:
    runtime = WholeRuntime(whole_graph(is_pooled), "cpu", 1)
    runtime.terminate()
    with pytest.raises(ModelFailure):
        runtime.run(np.array([[1]]), np.array([1], np.int32))
