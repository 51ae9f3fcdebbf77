"""benchmarks.peers: what Triton is given, and the parts of its models that need no Triton."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import models
from benchmarks.__main__ import measure
from benchmarks.baselines.bare_loop import BareLoop
from benchmarks.peers import catalog, environment
from benchmarks.peers.batches import by_length
from benchmarks.peers.environment import Environment, MissingPeer, find_environment
from benchmarks.peers.messages import prompt_request, streamed_texts, tensors_of, text_request
from benchmarks.peers.repository import Batching, Tensor, TritonModel, config_of, write_repository
from benchmarks.peers.series import SeriesForecaster
from benchmarks.peers.slots import Job, Slots
from benchmarks.registry import BY_NAME
from benchmarks.rounds import Sample
from benchmarks.rows import peers
from benchmarks.rows.forecasting import observations
from benchmarks.rows.peers import fastest, note_ratio
from benchmarks.workshop import Workshop
from seqserve.inference import grpc_service_pb2 as oip
from tests import tiny
from tests.benchmarks.conftest import Tiny

MODEL = TritonModel(
    "moods",
    "texts",
    "SortedTexts",
    [Tensor("text", "STRING", [1])],
    [Tensor("label", "STRING", [1]), Tensor("probabilities", "FP32", [2])],
    64,
    Batching(100, (8, 16)),
    parameters={"folder": '/a "quoted" folder'},
)


def complete_environment(folder: Path) -> Environment:
    """Make empty files and folders where an environment has what Triton needs."""
    made = Environment(folder)
    for package in ("pytriton", "onnxruntime", "tokenizers", "numpy", "pydantic"):
        (made.packages / package).mkdir(parents=True)
    for file in (made.program, made.backend / "utils.py", made.stub, made.libraries / "libz.so"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    library = folder / "base" / "lib" / environment.SHARED_PYTHON
    library.parent.mkdir(parents=True)
    library.touch()
    (folder / "pyvenv.cfg").write_text(f"home = {folder / 'base' / 'bin'}\nversion = 3.11.7\n")
    return made


def test_complete_environment_is_found(tmp_path: Path) -> None:
    expected = complete_environment(tmp_path)
    assert find_environment(tmp_path) == expected


def test_missing_environment_is_named_with_what_builds_it(tmp_path: Path) -> None:
    with pytest.raises(MissingPeer, match=r"expected the environment nothing/; 'make bench-peers' builds it"):
        find_environment(tmp_path / "nothing")


def test_missing_part_of_an_environment_is_named(tmp_path: Path) -> None:
    complete_environment(tmp_path).stub.unlink()
    with pytest.raises(MissingPeer, match=r"has no \S*python_backend_stubs/3.11/triton_python_backend_stub;"):
        find_environment(tmp_path)


def test_missing_library_of_python_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = complete_environment(tmp_path)
    (found.python_libraries / environment.SHARED_PYTHON).unlink()
    monkeypatch.setattr(environment, "find_library", lambda _: None)
    with pytest.raises(MissingPeer, match=r"needs the library libpython3.11.so.1.0.*libpython3.11$"):
        find_environment(tmp_path)


def test_row_without_triton_is_skipped_with_the_reason(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_environment", lambda: find_environment(tmp_path / "nothing"))
    result = measure(BY_NAME["P3"], workshop, 1, None)  # type: ignore[arg-type]
    assert result.trouble.startswith("Triton is not installed")
    assert not result.has_failed


def test_rows_against_triton_are_registered() -> None:
    assert {"P1", "P3", "P4", "P5", "P5s"} <= set(BY_NAME)


def test_config_declares_tensors_batching_and_parameters() -> None:
    assert config_of(MODEL).splitlines() == [
        'name: "moods"',
        'backend: "python"',
        "max_batch_size: 64",
        'input [ { name: "text", data_type: TYPE_STRING, dims: [ 1 ] } ]',
        'output [ { name: "label", data_type: TYPE_STRING, dims: [ 1 ] } ]',
        'output [ { name: "probabilities", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        "instance_group [ { kind: KIND_CPU, count: 1 } ]",
        "dynamic_batching { preferred_batch_size: [ 8, 16 ], max_queue_delay_microseconds: 100 }",
        r'parameters { key: "folder", value: { string_value: "/a \"quoted\" folder" } }',
    ]


def test_config_of_a_decoupled_model_says_so_and_does_not_batch(generator: Tiny) -> None:
    text = config_of(catalog.streams("letters", generator.model, 50))
    assert "model_transaction_policy { decoupled: true }" in text
    assert "dynamic_batching" not in text
    assert 'key: "interval_ms", value: { string_value: "50" }' in text


def test_repository_has_a_config_and_a_module_for_each_model(tmp_path: Path) -> None:
    write_repository(tmp_path, [MODEL])
    assert (tmp_path / "moods" / "config.pbtxt").read_text() == config_of(MODEL)
    source = (tmp_path / "moods" / "1" / "model.py").read_text()
    assert source.endswith("from benchmarks.peers.texts import SortedTexts as TritonPythonModel\n")
    compile(source, "model.py", "exec")


@given(st.lists(st.integers(1, 400), max_size=80), st.integers(1, 20))
def test_batches_have_every_sequence_once_and_rise_in_length(lengths: list[int], rows: int) -> None:
    batches = by_length(lengths, rows)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths)
    assert all(len(batch) == rows for batch in batches[:-1])
    assert all(1 <= len(batch) <= rows for batch in batches)


def test_forecasts_of_a_batch_are_those_of_each_series_alone() -> None:
    forecaster = SeriesForecaster(models.shipped("stock"))
    days = np.array([day.values for day in observations()], np.float32)
    series = np.stack([days[start : start + 7] for start in range(0, 50, 10)])
    values, quantiles = forecaster.forecast(series)
    assert values.shape == (5, 5)
    np.testing.assert_array_equal(values, quantiles[:, :, 1])
    for row, one in enumerate(series):
        alone, _ = forecaster.forecast(one[None])
        np.testing.assert_allclose(values[row], alone[0], rtol=1e-6)
        np.testing.assert_allclose(values[row], one[-1, 3], rtol=0.1)  # about the last close


class Written:
    """What a job was sent.

    Attributes:
        messages: texts in order.
        is_ended: whether one was the last.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.is_ended = False

    def send(self, text: str, is_last: bool) -> None:
        assert not self.is_ended, "expected nothing after the last message"
        self.messages.append(text)
        self.is_ended = is_last

    @property
    def text(self) -> str:
        return "".join(self.messages)


def job(written: Written, max_tokens: int, seed: int, prompt: tuple[int, ...] = (0,)) -> Job:
    return Job(np.array(prompt, np.int64), max_tokens, 1.0, seed, written.send)


def run_out(slots: Slots) -> None:
    while slots.count:
        slots.step()


def test_slots_write_what_the_bare_loop_does(generator: Tiny) -> None:
    rows, characters = 3, 12
    expected = BareLoop(generator.model, rows).generate(characters)
    slots, written = Slots(generator.model, 4), [Written() for _ in range(rows)]
    for row, one in enumerate(written):
        slots.admit(job(one, characters, row))
    run_out(slots)
    found = [[tiny.VOCABULARY.index(character) for character in one.text] for one in written]
    np.testing.assert_array_equal(found, expected)


PROMPTS = st.lists(st.integers(0, 9), min_size=1, max_size=4)
# Tokens, seed, prompt, and steps of the others before a row joins.
JOBS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 9), PROMPTS, st.integers(0, 3)), min_size=1, max_size=6
)


@given(JOBS)
def test_text_of_a_row_does_not_depend_on_when_others_join_and_leave(
    generator: Tiny, jobs: list[tuple[int, int, list[int], int]]
) -> None:
    alone, beside = Slots(generator.model, 1), Slots(generator.model, 6)
    expected, found = [], []
    for tokens, seed, prompt, wait in jobs:
        single, shared = Written(), Written()
        alone.admit(job(single, tokens, seed, tuple(prompt)))
        run_out(alone)
        for _ in range(wait if beside.count else 0):
            if beside.count:
                beside.step()
        beside.flush()
        beside.admit(job(shared, tokens, seed, tuple(prompt)))
        expected.append(single)
        found.append(shared)
    run_out(beside)
    assert [one.text for one in found] == [one.text for one in expected]
    assert all(one.is_ended for one in found)
    assert [len(one.text) for one in found] == [tokens for tokens, *_ in jobs]


def test_first_token_is_sent_at_once_and_the_rest_at_flushes(generator: Tiny) -> None:
    slots, written = Slots(generator.model, 2), Written()
    slots.admit(job(written, 6, 0))
    sizes = []
    for step in range(6):
        slots.step()
        if step == 3:
            slots.flush()
        sizes.append(len(written.messages))
    assert sizes == [1, 1, 1, 2, 2, 3]
    assert list(map(len, written.messages)) == [1, 3, 2]


def test_text_is_sent_in_the_form_of_the_protocol() -> None:
    request = oip.ModelInferRequest.FromString(text_request("mixed", "äb", (1, 1)))
    assert request.raw_input_contents == [b"\x03\x00\x00\x00\xc3\xa4b"]
    assert list(request.inputs[0].shape) == [1, 1]


def test_prompt_is_sent_with_its_parameters() -> None:
    request = oip.ModelInferRequest.FromString(prompt_request("chars", "T", 7, 40, 0.5))
    assert request.id == "7"
    found = {name: one.WhichOneof("parameter_choice") for name, one in request.parameters.items()}
    assert found == {"max_tokens": "int64_param", "seed": "int64_param", "temperature": "double_param"}


def answer_of(text: str, number: str) -> oip.ModelInferResponse:
    data = text.encode()
    return oip.ModelInferResponse(
        id=number,
        outputs=[oip.ModelInferResponse.InferOutputTensor(name="text", datatype="BYTES", shape=[1])],
        raw_output_contents=[len(data).to_bytes(4, sys.byteorder) + data],
    )


def test_streamed_texts_are_put_together_by_request() -> None:
    parts = [("a", "1"), ("x", "2"), ("bc", "1")]
    messages = [oip.ModelStreamInferResponse(infer_response=answer_of(*part)) for part in parts]
    messages.append(oip.ModelStreamInferResponse(infer_response=oip.ModelInferResponse(id="1")))
    assert streamed_texts([one.SerializeToString() for one in messages]) == {"1": "abc", "2": "x"}


def test_streamed_error_is_not_taken_for_text() -> None:
    failed = oip.ModelStreamInferResponse(error_message="no such model").SerializeToString()
    with pytest.raises(AssertionError, match="no such model"):
        streamed_texts([failed])


def test_tensors_are_read_by_name() -> None:
    assert tensors_of(answer_of("good", "3").SerializeToString()).text("text") == "good"


def test_fastest_form_is_that_of_the_better_of_two_runs() -> None:
    first, second = iter([1.0, 9.0]), iter([5.0, 6.0])
    name, values = fastest({"one": lambda: Sample(next(first)), "other": lambda: Sample(next(second))})
    assert name == "one"
    assert values == {"one": 9.0, "other": 6.0}


def test_claim_on_a_note_divides_it_within_a_round() -> None:
    claim = note_ratio("p99", "p99 ms", "ours", "theirs", 1.5, is_at_most=True)
    samples = {"ours": Sample(1, notes={"p99 ms": 30.0}), "theirs": Sample(1, notes={"p99 ms": 10.0})}
    assert claim.of(samples) == 3.0
    assert claim.is_at_most
