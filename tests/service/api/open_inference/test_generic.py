"""Models for sequences through the Open Inference Protocol, served in this process."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from seqserve.inference import grpc_service_pb2 as pb
from service.engine.request import ANYONE
from service.tasks.sequences import SequenceInput
from tests import contract2
from tests.integration.tensors import infer_request
from tests.service.api.conftest import Running, serving
from tests.service.api.open_inference.generic import (
    AXES,
    INITIAL,
    LENGTHS,
    RANDOM,
    TEXTS,
    all_of,
    array,
    assert_is_padded,
    infer,
    names,
    steps_of,
    stub,
    task_of,
    texts_of,
)
from tests.service.api.rich import fields_of, finish, refused_with

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
        right = await task_of(generic, "odd").infer(
            steps_of(rows, np.array([5, 5])), steps != "last", raw, ANYONE
        )
        found = await infer(generic, "odd", {"input": rows}, parameters | {"raw": raw})
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


async def test_inputs_of_the_init_graph_begin_each_sequence(generic: Running) -> None:
    rows = RANDOM.normal(0, 1, (2, 4, 2)).astype(np.float32)
    reference = contract2.Reference(contract2.BEGUN)
    firsts = [{name: values[index] for name, values in INITIAL.items()} for index in range(2)]
    right = [reference.outputs(row, first) for row, first in zip(rows, firsts, strict=True)]
    found = await infer(generic, "begun", {"input": rows, **INITIAL})
    np.testing.assert_array_equal(array(found, "output"), np.stack(right))
    mark: dict[str, Any] = {"sequence_id": 1, "sequence_start": True}
    first = {name: values[:1] for name, values in INITIAL.items()}
    begun = await infer(generic, "begun", {"input": rows[:1, :3], **first}, mark)
    late = infer_request("begun", {"input": rows[:1, 3:], **first}, {"sequence_id": 1})
    assert await fields_of(stub(generic).ModelInfer(late)) == ["inputs"]
    mark = {"sequence_id": 1, "sequence_end": True}
    after = await infer(generic, "begun", {"input": rows[:1, 3:]}, mark)
    both = np.concatenate([array(begun, "output"), array(after, "output")], axis=1)
    np.testing.assert_array_equal(both, right[0][None])


async def test_networks_that_look_both_ways_are_answered_whole(generic: Running) -> None:
    right = await task_of(generic, "both-ways").infer(steps_of(AXES, LENGTHS), None, False, ANYONE)
    found = await infer(generic, "both-ways", {"input": AXES, "lengths": LENGTHS})
    assert_is_padded(array(found, "label"), all_of(right, "labels"), "")
    assert_is_padded(array(found, "probabilities"), all_of(right, "probabilities"), 0)
    for model in ("pooled", "equal"):
        whole = await task_of(generic, model).infer(steps_of(AXES, LENGTHS), None, False, ANYONE)
        found = await infer(generic, model, {"input": AXES, "lengths": LENGTHS})
        np.testing.assert_array_equal(array(found, "output"), np.concatenate(all_of(whole, "values")))
        wrong = infer_request(model, {"input": AXES}, {"output_steps": "every"})
        assert await fields_of(stub(generic).ModelInfer(wrong)) == ["output_steps"]
        kept = infer_request(model, {"input": AXES[:1]}, {"sequence_id": 1, "sequence_start": True})
        assert await fields_of(stub(generic).ModelInfer(kept)) == ["sequence_id"]


async def test_stream_answers_as_a_call_does(generic: Running) -> None:
    requests = [infer_request("tags", {"text": [text]}, id=text) for text in TEXTS]
    found = await finish(stub(generic).ModelStreamInfer(iter(requests)))
    for answer in found:
        assert answer.infer_response.parameters.pop("triton_final_response").bool_param
        alone = await infer(
            generic, "tags", {"text": [answer.infer_response.id]}, id=answer.infer_response.id
        )
        assert answer.infer_response == alone


# Sequences of several requests.


@pytest.mark.parametrize("steps", ["last", "every"])
@pytest.mark.parametrize("model", ["activity", "odd"])
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
