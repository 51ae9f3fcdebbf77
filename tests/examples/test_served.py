"""The examples through every door of the real server: their answers reach the bars that PyTorch's reach."""

from pathlib import Path

import numpy as np
import pytest
from grpc import aio

from seqserve.v1 import models_pb2
from seqserve.v1.models_pb2_grpc import ModelsStub
from tests.examples import doors
from tests.examples.every import NAMES, example
from tests.integration.calls import Calls, refusal
from tests.integration.process import ServerProcess

STREAMED = [name for name in NAMES if name in ("activity", "anomaly")]


@pytest.mark.parametrize("name", NAMES)
async def test_example_is_admitted_and_described(channel: aio.Channel, name: str) -> None:
    stub = ModelsStub(channel)
    model = await stub.Get(models_pb2.GetModelRequest(model=name))
    assert (model.status, model.message) == (models_pb2.MODEL_STATUS_READY, "")
    assert model.kind == example(name).package.network.config.kind
    assert model.batch_invariant


@pytest.mark.parametrize("name", NAMES)
async def test_typed_service_reaches_the_bar(channel: aio.Channel, name: str) -> None:
    made = example(name)
    found = await doors.typed(channel, name, made.questions)
    assert made.score(found) >= made.bar


@pytest.mark.parametrize("name", NAMES)
async def test_answers_have_the_same_bits_alone_and_in_a_crowd(channel: aio.Channel, name: str) -> None:
    questions = example(name).questions[:24]
    together = await doors.typed(channel, name, questions, raw=True)
    alone = [(await doors.typed(channel, name, [one], raw=True))[0] for one in questions]
    assert all(map(doors.same, together, alone))


@pytest.mark.parametrize("name", NAMES)
async def test_open_inference_gives_the_same_answers(channel: aio.Channel, name: str) -> None:
    made = example(name)
    found = await doors.open_inference(channel, name, made.questions)
    for one, other in zip(found, await doors.typed(channel, name, made.questions), strict=True):
        assert (one.labels, one.text) == (other.labels, other.text)
        if not one.labels and not one.text:
            np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in doors.WRITERS])
async def test_command_prints_the_same_answers(
    server: ServerProcess, channel: aio.Channel, name: str
) -> None:
    questions = example(name).questions[:12]
    found = doors.inferred(server.address, name, questions)
    for one, other in zip(found, await doors.typed(channel, name, questions), strict=True):
        assert one.labels == other.labels
        if not one.labels:
            np.testing.assert_array_equal(one.values, other.values)


async def test_command_captions_an_image(server: ServerProcess, channel: aio.Channel, tmp_path: Path) -> None:
    questions = example("captions").questions[:3]
    found = [doors.captioned(server.address, one, tmp_path / "image.json") for one in questions]
    whole = await doors.typed(channel, "captions", questions)
    assert [one.text for one in found] == [one.text for one in whole]


async def test_command_writes_a_date(server: ServerProcess, channel: aio.Channel) -> None:
    questions = example("dates").questions[:3]
    found = [doors.dated(server.address, one) for one in questions]
    whole = await doors.typed(channel, "dates", questions)
    assert [one.text for one in found] == [one.text for one in whole]


async def test_word_that_no_date_has_is_refused(channel: aio.Channel) -> None:
    found = await refusal(Calls(channel).generate("dates", source={"text": "3 Mai 2021"}))
    assert "character 'M' (U+004D) at position 2" in found.violations["source.text"]


async def test_command_labels_the_words_of_a_sentence(server: ServerProcess, channel: aio.Channel) -> None:
    questions = example("tags").questions[:12]
    found = doors.labelled(server.address, "tags", questions)
    for one, other in zip(found, await doors.typed(channel, "tags", questions), strict=True):
        assert tuple(part["label"] for part in one["parts"]) == other.labels
        assert " ".join(part["text"] for part in one["parts"]) == one["text"]


@pytest.mark.parametrize("steps", [1, 7])
async def test_stream_scores_each_minute_as_the_whole_series_does(channel: aio.Channel, steps: int) -> None:
    made = example("anomaly")
    questions = made.questions[: 4 if steps == 1 else None]
    whole = await doors.typed(channel, "anomaly", questions)
    for parts, one in zip(await doors.streamed(channel, "anomaly", questions, steps), whole, strict=True):
        together = np.concatenate([doors.answer(part.output).values for part in parts])
        np.testing.assert_array_equal(together, one.values)
        assert parts[-1].position == len(one.values)


async def test_activity_is_known_while_it_goes_on(channel: aio.Channel) -> None:
    """The last message's label is that of the whole sequence, whichever messages brought its steps."""
    made = example("activity")
    parts = await doors.streamed(channel, "activity", made.questions[:20], 25)
    whole = await doors.typed(channel, "activity", made.questions[:20])
    assert [doors.answer(one[-1].output).labels for one in parts] == [one.labels for one in whole]
