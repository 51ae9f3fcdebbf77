"""Models for sequences through the Open Inference Protocol, served in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.engine.request import ANYONE
from service.tasks.sequences import SequenceInput, SequenceOutput, SequencesTask
from tests import contract2
from tests.contract2_graphs import Layer
from tests.integration.tensors import infer_request
from tests.service.api.conftest import Running, serving
from tests.service.api.rich import code_of_call, fields_of, finish, refused_with, unpack

# Numbers with names and units.
SCALED = replace(contract2.ODD, name="scaled", layers=(Layer("lstm", 5), Layer("gru", 7)))
NETS = (
    contract2.ACTIVITY,
    contract2.TAGS,
    SCALED,
    contract2.VANILLA,
    contract2.TOPICS,
    contract2.WINDOWED,
    contract2.WORD_TAGS,
)
RANDOM = np.random.default_rng(3)
AXES = RANDOM.uniform(0.5, 2.0, (3, 6, 3)).astype(np.float32)
LENGTHS = np.array([2, 6, 1], np.int32)
TEXTS = ["abc", "h", "gé a\nb"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def generic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A server of models of contract 2, one of each kind of input and output."""
    folder: Path = tmp_path_factory.mktemp("generic")
    for net in NETS:
        contract2.export(net, folder)
    async with serving(folder, "thread") as started:
        yield started


def stub(generic: Running) -> Any:
    return GRPCInferenceServiceStub(generic.channel)


async def infer(generic: Running, *arguments: Any, **fields: Any) -> pb.ModelInferResponse:
    response: pb.ModelInferResponse = await stub(generic).ModelInfer(infer_request(*arguments, **fields))
    return response


def array(response: pb.ModelInferResponse, name: str) -> np.ndarray[Any, Any]:
    """An output as tritonclient reads it: BYTES are texts."""
    [index] = [index for index, one in enumerate(response.outputs) if one.name == name]
    output, raw = response.outputs[index], response.raw_output_contents[index]
    if output.datatype != "BYTES":
        kind = {"FP32": np.float32, "INT32": np.int32}[output.datatype]
        return np.frombuffer(raw, kind).reshape(output.shape)
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end].decode())
        raw = raw[end:]
    return np.array(found, object).reshape(output.shape)


def names(response: pb.ModelInferResponse) -> list[str]:
    return [one.name for one in response.outputs]


def task_of(generic: Running, model: str) -> SequencesTask:
    task = generic.repository.table.find(model, 0, "sequences").task
    assert isinstance(task, SequencesTask)
    return task


def steps_of(rows: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> list[SequenceInput]:
    return [SequenceInput(None, None, row[:length], {}) for row, length in zip(rows, lengths, strict=True)]


def texts_of(*texts: str) -> list[SequenceInput]:
    return [SequenceInput(text, None, None, {}) for text in texts]


def assert_is_padded(found: np.ndarray[Any, Any], parts: list[Any], filler: object) -> None:
    """Each row of the tensor holds one part, and the filler behind it."""
    assert len(found) == len(parts)
    for row, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(row[: len(part)], part)
        assert (row[len(part) :] == filler).all()


# What goes in and comes out.


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw contents", "typed contents"])
async def test_classes_of_the_last_step_are_those_of_the_task(generic: Running, is_raw: bool) -> None:
    right = await task_of(generic, "activity").infer(steps_of(AXES, LENGTHS), None, True, ANYONE)
    garbage = AXES.copy()
    for row, length in zip(garbage, LENGTHS, strict=True):
        row[length:] = np.nan  # padding is not looked at
    tensors = {"input": garbage, "lengths": LENGTHS}
    found = await infer(generic, "activity", tensors, is_raw=is_raw, id="mine")
    assert (found.model_name, found.model_version, found.id) == ("activity", "1", "mine")
    assert names(found) == ["label", "probabilities"]
    assert array(found, "label").tolist() == [one.labels[0] for one in right]
    np.testing.assert_array_equal(
        array(found, "probabilities"), np.concatenate(all_of(right, "probabilities"))
    )
    both = await infer(generic, "activity", tensors, {"raw": True})
    assert names(both) == ["label", "probabilities", "output"]
    np.testing.assert_array_equal(array(both, "output"), np.concatenate(all_of(right, "values")))


def all_of(outputs: list[SequenceOutput], name: str) -> list[Any]:
    return [getattr(one, name) for one in outputs]


async def test_outputs_of_every_step_have_the_time_of_the_input_and_0_behind_a_length(
    generic: Running,
) -> None:
    right = await task_of(generic, "activity").infer(steps_of(AXES, LENGTHS), True, True, ANYONE)
    tensors = {"input": np.concatenate([AXES, AXES[:, :1]], axis=1), "lengths": LENGTHS}
    found = await infer(generic, "activity", tensors, {"output_steps": "every", "raw": "true"})
    shapes = [(3, 7), (3, 7, 3), (3, 7, 3)]
    assert [array(found, name).shape for name in ("label", "probabilities", "output")] == shapes
    assert_is_padded(array(found, "label"), all_of(right, "labels"), "")
    assert_is_padded(array(found, "probabilities"), all_of(right, "probabilities"), 0)
    assert_is_padded(array(found, "output"), all_of(right, "values"), 0)


@pytest.mark.parametrize(("model", "texts"), [("tags", TEXTS), ("word-tags", ["the dog runs", "cat", "a b"])])
async def test_labels_of_texts_come_with_the_characters_that_each_stands_for(
    generic: Running, model: str, texts: list[str]
) -> None:
    right = await task_of(generic, model).infer(texts_of(*texts), None, False, ANYONE)
    found = await infer(generic, model, {"text": texts})
    assert names(found) == ["label", "probabilities", "spans"]
    assert array(found, "label").shape == (3, max(one.steps for one in right))
    assert_is_padded(array(found, "label"), all_of(right, "labels"), "")
    assert_is_padded(array(found, "probabilities"), all_of(right, "probabilities"), 0)
    assert_is_padded(array(found, "spans"), all_of(right, "spans"), 0)
    last = await infer(generic, model, {"text": texts}, {"output_steps": "last"})
    assert array(last, "label").tolist() == [one.labels[-1] for one in right]
    assert array(last, "spans").tolist() == [[0, len(text)] for text in texts]


async def test_token_ids_equal_their_texts(generic: Running) -> None:
    ids = [[contract2.VOCABULARY.index(character) for character in text] for text in TEXTS]
    padded = np.full((3, 6), -1, np.int64)
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = one
    lengths = np.array(list(map(len, ids)), np.int32)
    found = await infer(generic, "tags", {"input": padded, "lengths": lengths})
    texts = await infer(generic, "tags", {"text": TEXTS})
    for name in ("label", "probabilities"):
        np.testing.assert_array_equal(array(found, name), array(texts, name))
    assert not array(found, "spans").any()


@pytest.mark.parametrize("steps", ["last", "every", None])
async def test_numbers_are_in_their_units_and_raw_ones_the_networks_own(
    generic: Running, steps: str | None
) -> None:
    rows = RANDOM.normal(0, 1, (2, 5, 4)).astype(np.float32)
    parameters: dict[str, Any] = {} if steps is None else {"output_steps": steps}
    for raw in (False, True):
        right = await task_of(generic, "scaled").infer(
            steps_of(rows, np.array([5, 5])), steps != "last", raw, ANYONE
        )
        found = await infer(generic, "scaled", {"input": rows}, parameters | {"raw": raw})
        assert names(found) == ["output"]
        expected = np.stack(all_of(right, "values"))
        np.testing.assert_array_equal(
            array(found, "output"), expected[:, -1] if steps == "last" else expected
        )


async def test_embedding_and_labels_that_hold_side_by_side(generic: Running) -> None:
    rows = RANDOM.normal(0, 1, (2, 3, 2)).astype(np.float32)
    right = await task_of(generic, "vanilla").infer(steps_of(rows, np.array([3, 3])), None, False, ANYONE)
    found = await infer(generic, "vanilla", {"input": rows})
    # A vanilla RNN gives other last bits in another batch.
    np.testing.assert_allclose(array(found, "output"), np.concatenate(all_of(right, "values")), atol=1e-6)
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    topics = await task_of(generic, "topics").infer(
        [SequenceInput(None, row, None, {}) for row in tokens], None, False, ANYONE
    )
    found = await infer(generic, "topics", {"input": tokens})
    assert array(found, "label").tolist() == [one.labels[0] for one in topics]


async def test_text_longer_than_the_window_is_cut_as_the_model_says(generic: Running) -> None:
    long, short = "abcdefgh" * 3, "ab"
    right = await task_of(generic, "windowed").infer(texts_of(long, short), True, False, ANYONE)
    found = await infer(generic, "windowed", {"text": [long, short]}, {"output_steps": "every"})
    assert array(found, "label").shape == (2, 8)
    assert_is_padded(array(found, "label"), all_of(right, "labels"), "")
    assert_is_padded(array(found, "spans"), all_of(right, "spans"), 0)


async def test_outputs_asked_for_come_alone(generic: Running) -> None:
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in ("output", "label")]
    found = await infer(generic, "activity", {"input": AXES}, {"raw": True}, outputs=wanted)
    assert names(found) == ["output", "label"]


async def test_stream_answers_as_a_call_does(generic: Running) -> None:
    requests = [infer_request("tags", {"text": [text]}, id=text) for text in TEXTS]
    found = await finish(stub(generic).ModelStreamInfer(iter(requests)))
    for answer in found:
        assert answer.infer_response.parameters.pop("triton_final_response").bool_param
        alone = await infer(
            generic, "tags", {"text": [answer.infer_response.id]}, id=answer.infer_response.id
        )
        assert answer.infer_response == alone


# What is said of a model.


@pytest.mark.parametrize(
    ("model", "inputs", "outputs", "optional", "keeps_state"),
    [
        (
            "activity",
            [("input", "FP32", [-1, -1, 3]), ("lengths", "INT32", [-1])],
            [("label", "BYTES", [-1]), ("probabilities", "FP32", [-1, 3])],
            ["lengths"],
            True,
        ),
        (
            "tags",
            [("text", "BYTES", [-1]), ("input", "INT64", [-1, -1]), ("lengths", "INT32", [-1])],
            [
                ("label", "BYTES", [-1, -1]),
                ("probabilities", "FP32", [-1, -1, 3]),
                ("spans", "INT32", [-1, -1, 2]),
            ],
            ["text", "input", "lengths"],
            True,
        ),
        (
            "scaled",
            [("input", "FP32", [-1, -1, 4]), ("lengths", "INT32", [-1])],
            [("output", "FP32", [-1, -1, 2])],
            ["lengths"],
            True,
        ),
        (
            "windowed",
            [("text", "BYTES", [-1]), ("input", "INT64", [-1, -1]), ("lengths", "INT32", [-1])],
            [("label", "BYTES", [-1]), ("probabilities", "FP32", [-1, 3]), ("spans", "INT32", [-1, 2])],
            ["text", "input", "lengths"],
            False,
        ),
    ],
    ids=["activity", "tags", "scaled", "windowed"],
)
async def test_metadata_and_configuration_say_what_goes_in_and_comes_out(
    generic: Running,
    model: str,
    inputs: list[Any],
    outputs: list[Any],
    optional: list[str],
    keeps_state: bool,
) -> None:
    found = await stub(generic).ModelMetadata(pb.ModelMetadataRequest(name=model))
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == inputs
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == outputs
    config = (await stub(generic).ModelConfig(pb.ModelConfigRequest(name=model))).config
    assert [one.name for one in config.input if one.optional] == optional
    assert [one.name for one in config.output] == [name for name, *_ in outputs]
    assert config.HasField("sequence_batching") is keeps_state


@pytest.mark.parametrize(
    ("model", "properties"),
    [
        (
            "activity",
            {
                "task": "sequences",
                "input": "steps",
                "output": "label",
                "output_steps": "last",
                "labels": '["still", "walking", "running"]',
                "columns": '["x", "y", "power"]',
                "units": '["g", "g", "W"]',
            },
        ),
        (
            "scaled",
            {
                "task": "sequences",
                "input": "steps",
                "output": "numbers",
                "output_steps": "every",
                "output_columns": '["speed", "turn"]',
                "output_units": '["m/s", ""]',
            },
        ),
        ("vanilla", {"task": "sequences", "input": "steps", "output": "embedding", "output_steps": "last"}),
    ],
    ids=["activity", "scaled", "vanilla"],
)
async def test_properties_tell_names_and_units(
    generic: Running, model: str, properties: Mapping[str, str]
) -> None:
    found = await stub(generic).ModelMetadata(pb.ModelMetadataRequest(name=model))
    assert dict(found.properties) == properties


# Sequences of several requests.


@pytest.mark.parametrize("steps", ["last", "every"])
@pytest.mark.parametrize("model", ["activity", "scaled"])
async def test_steps_as_they_come_are_answered_as_whole_sequences(
    generic: Running, model: str, steps: str
) -> None:
    rows = RANDOM.uniform(0.5, 2.0, (1, 7, 3 if model == "activity" else 4)).astype(np.float32)
    cuts = [(0, 3), (3, 4), (4, 7)]
    parameters: dict[str, Any] = {"output_steps": steps, "raw": True}
    pieces = []
    for (start, end), mark in zip(cuts, ("sequence_start", "", "sequence_end"), strict=True):
        marks: dict[str, Any] = {"sequence_id": "mine"} | ({mark: True} if mark else {})
        pieces.append(await infer(generic, model, {"input": rows[:, start:end]}, parameters | marks))
    whole = array(
        await infer(generic, model, {"input": rows}, {"output_steps": "every", "raw": True}), "output"
    )
    for (start, end), piece in zip(cuts, pieces, strict=True):
        expected = whole[:, end - 1] if steps == "last" else whole[:, start:end]
        np.testing.assert_array_equal(array(piece, "output"), expected)
    assert len(generic.sequences) == 0


async def test_text_of_a_sequence_goes_on_where_it_ended(generic: Running) -> None:
    marks: list[dict[str, Any]] = [{"sequence_start": True}, {"sequence_end": True}]
    parts = ["abc", "dé f"]
    pieces = [
        await infer(generic, "tags", {"text": [part]}, {"sequence_id": 3} | mark)
        for part, mark in zip(parts, marks, strict=True)
    ]
    whole = await infer(generic, "tags", {"text": ["".join(parts)]})
    np.testing.assert_array_equal(
        np.concatenate([array(one, "probabilities") for one in pieces], axis=1),
        array(whole, "probabilities"),
    )


async def test_unload_waits_for_no_open_sequence(tmp_path: Path) -> None:
    contract2.export(contract2.VANILLA, tmp_path)
    async with serving(tmp_path, "thread") as alone:
        rows = np.ones((1, 2, 2), np.float32)
        await infer(alone, "vanilla", {"input": rows}, {"sequence_id": 1, "sequence_start": True})
        async with asyncio.timeout(20):
            await alone.repository.unload("vanilla", 1)
        late = infer_request("vanilla", {"input": rows}, {"sequence_id": 1})
        status = await refused_with(stub(alone).ModelInfer(late))
        assert status.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert "version 1 of the model, which answered it so far, serves no more" in status.message
        assert len(alone.sequences) == 0


async def test_model_with_a_window_keeps_no_sequences(generic: Running) -> None:
    wrong = infer_request("windowed", {"text": ["a"]}, {"sequence_id": 3, "sequence_start": True})
    assert await fields_of(stub(generic).ModelInfer(wrong)) == ["sequence_id"]


# What is refused.


def with_value(value: float) -> np.ndarray[Any, Any]:
    rows = AXES.copy()
    rows[1, 4, 2] = value
    return rows


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param(infer_request("activity", {}), "inputs", id="no input"),
        pytest.param(infer_request("tags", {}), "inputs", id="neither text nor input"),
        pytest.param(
            infer_request("tags", {"text": ["a"], "input": np.ones((1, 1), np.int64)}), "inputs", id="both"
        ),
        pytest.param(
            infer_request("tags", {"text": ["a"], "lengths": np.ones(1, np.int32)}), "lengths", id="lengths"
        ),
        pytest.param(infer_request("activity", {"text": ["a"]}), "inputs", id="text for values"),
        pytest.param(infer_request("tags", {"text": ["a", ""]}), "text[1]", id="empty text"),
        pytest.param(infer_request("tags", {"text": ["a", "Z"]}), "text[1]", id="unknown character"),
        pytest.param(infer_request("tags", {"text": [b"\xff"]}), "text[0]", id="no UTF-8"),
        pytest.param(
            infer_request("topics", {"input": np.array([[1, 2], [3, 20]])}), "input[1, 1]", id="token id"
        ),
        pytest.param(infer_request("activity", {"input": with_value(np.nan)}), "input[1, 4, 2]", id="NaN"),
        pytest.param(
            infer_request("activity", {"input": with_value(-1.0)}), "input[1, 4, 2]", id="logarithm"
        ),
        pytest.param(infer_request("activity", {"input": AXES[:, :, :2]}), "input", id="narrow rows"),
        pytest.param(
            infer_request("activity", {"input": AXES, "lengths": np.array([1, 7, 1], np.int32)}),
            "lengths[1]",
            id="length over time",
        ),
        pytest.param(
            infer_request("activity", {"input": np.ones((1, 10_001, 3), np.float32)}), "input", id="long"
        ),
        pytest.param(
            infer_request("activity", {"input": AXES}, {"output_steps": "all"}), "output_steps", id="steps"
        ),
        pytest.param(
            infer_request("activity", {"input": AXES}, {"output_steps": 1}), "output_steps", id="number"
        ),
        pytest.param(infer_request("activity", {"input": AXES}, {"raw": "yes"}), "raw", id="no truth value"),
        pytest.param(
            infer_request(
                "activity",
                {"input": AXES},
                outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="output")],
            ),
            "outputs",
            id="output without raw",
        ),
    ],
)
async def test_wrong_request_is_refused_by_the_tensors_name(
    generic: Running, wrong: pb.ModelInferRequest, field: str
) -> None:
    assert await fields_of(stub(generic).ModelInfer(wrong)) == [field]


@pytest.mark.parametrize(
    ("model", "tensors"),
    [
        ("activity", {"input": np.ones((16, 10_000, 3), np.float32)}),
        # Small as it is, and large with the padding of its short rows.
        ("tags", {"text": ["a" * 60_000, "b", "c", "d"]}),
    ],
    ids=["activity", "tags"],
)
async def test_answer_that_would_be_too_large_is_refused_before_it_is_computed(
    generic: Running, model: str, tensors: dict[str, Any]
) -> None:
    counts = generic.repository.table.find(model, 0, "sequences").counts
    before = [one.steps["useful"].value for one in counts]
    request = infer_request(model, tensors, {"output_steps": "every"})
    status = await refused_with(stub(generic).ModelInfer(request))
    assert unpack(status)["ErrorInfo"].reason == "ANSWER_TOO_LARGE"
    assert [one.steps["useful"].value for one in counts] == before


@pytest.mark.parametrize("form", ["every", "last"])
async def test_passed_timeout_ends_a_request(generic: Running, form: str) -> None:
    late = infer_request("activity", {"input": AXES}, {"output_steps": form, "timeout": "1"})
    assert await code_of_call(stub(generic).ModelInfer(late)) is grpc.StatusCode.DEADLINE_EXCEEDED
