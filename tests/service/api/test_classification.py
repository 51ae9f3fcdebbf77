"""service.api.classification, served in this process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from seqserve.v1 import text_classification_pb2 as pb
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from service.engine.request import ANYONE
from service.tasks.classification import ClassificationTask
from tests.service.api.conftest import IN_FLIGHT, Running
from tests.service.api.rich import code_of_call, fields_of, finish, unpack

MODEL = "moods"
TEXTS = ["good film", "the film not very good", "bad"]


def request(texts: list[str], name: str = "", model: str = MODEL) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(model=model, texts=texts, id=name)


async def test_answers_are_those_of_the_task(running: Running) -> None:
    task = running.repository.table.find(MODEL, 0, "text-classification").task
    assert isinstance(task, ClassificationTask)
    right = await task.classify(TEXTS, ANYONE)
    found = await TextClassificationStub(running.channel).Classify(request(TEXTS, "mine"))
    assert found.id == "mine"
    for one, classified in zip(found.results, right, strict=True):
        assert [item.label for item in one.probabilities] == [label for label, _ in classified.ranked]
        assert [item.probability for item in one.probabilities] == pytest.approx(
            [probability for _, probability in classified.ranked], rel=1e-6
        )
        assert (one.label, one.probability) == (one.probabilities[0].label, one.probabilities[0].probability)
        assert one.token_count == classified.token_count


@pytest.mark.parametrize(
    ("texts", "field"),
    [([], "texts"), (["good", ""], "texts[1]"), (["good"] * 257, "texts")],
    ids=["none", "empty", "many"],
)
async def test_wrong_texts_are_named(running: Running, texts: list[str], field: str) -> None:
    assert await fields_of(TextClassificationStub(running.channel).Classify(request(texts))) == [field]


async def test_model_for_another_task_is_refused(running: Running) -> None:
    assert await fields_of(
        TextClassificationStub(running.channel).Classify(request(TEXTS, model="letters"))
    ) == ["model"]


# The stream.


async def test_stream_answers_every_request_once(running: Running) -> None:
    requests = [request(TEXTS[: 1 + index % 3], str(index)) for index in range(40)]
    answers = await finish(TextClassificationStub(running.channel).ClassifyStream(iter(requests)))
    assert sorted(int(one.id) for one in answers) == list(range(40))
    assert {one.id: len(one.results) for one in answers} == {str(index): 1 + index % 3 for index in range(40)}


async def test_stream_answers_equal_unary_ones(running: Running) -> None:
    stub = TextClassificationStub(running.channel)
    answers = await finish(stub.ClassifyStream(iter([request([text], text) for text in TEXTS])))
    for one in answers:
        assert one == await stub.Classify(request([one.id], one.id))


async def test_wrong_request_gets_an_error_and_the_stream_goes_on(running: Running) -> None:
    requests = [
        request(TEXTS, "before"),
        request([], "wrong"),
        request(TEXTS, "unknown", "none"),
        request(TEXTS, "after"),
    ]
    answers = {
        one.id: one
        for one in await finish(TextClassificationStub(running.channel).ClassifyStream(iter(requests)))
    }
    assert [len(answers[name].results) for name in ("before", "wrong", "unknown", "after")] == [3, 0, 0, 3]
    assert answers["wrong"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert unpack(answers["wrong"].error)["BadRequest"].field_violations[0].field == "texts"
    assert answers["unknown"].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert not answers["before"].HasField("error")


async def test_endless_id_ends_the_call(running: Running) -> None:
    stub, wrong = TextClassificationStub(running.channel), request(TEXTS, "i" * 1025)
    assert await fields_of(stub.Classify(wrong)) == ["id"]
    assert await fields_of(stub.ClassifyStream(iter([wrong]))) == ["id"]


async def test_stream_without_a_request_ends(running: Running) -> None:
    assert await finish(TextClassificationStub(running.channel).ClassifyStream(iter([]))) == []


async def test_answers_come_while_the_stream_is_open(running: Running) -> None:
    is_answered = asyncio.Event()

    async def ask() -> AsyncIterator[pb.ClassifyRequest]:
        yield request(TEXTS, "first")
        await is_answered.wait()
        yield request(TEXTS, "second")

    names = []
    async with asyncio.timeout(20):
        async for one in TextClassificationStub(running.channel).ClassifyStream(ask()):
            names.append(one.id)
            is_answered.set()
    assert names == ["first", "second"]


async def test_more_requests_than_places_are_all_answered(running: Running) -> None:
    requests = [request(["good"], str(index)) for index in range(IN_FLIGHT * 20)]
    assert (
        len(await finish(TextClassificationStub(running.channel).ClassifyStream(iter(requests))))
        == IN_FLIGHT * 20
    )


async def test_cancelled_stream_leaves_the_server_answering(running: Running) -> None:
    stub = TextClassificationStub(running.channel)

    async def ask() -> AsyncIterator[pb.ClassifyRequest]:
        while True:
            yield request(TEXTS)

    call = stub.ClassifyStream(ask())
    await call.read()
    call.cancel()
    assert await code_of_cancelled(call) is grpc.StatusCode.CANCELLED
    assert len((await stub.Classify(request(TEXTS))).results) == 3


async def code_of_cancelled(
    call: "grpc.aio.StreamStreamCall[pb.ClassifyRequest, pb.ClassifyResponse]",
) -> grpc.StatusCode:
    return await call.code()


async def test_passed_deadline_ends_the_stream(running: Running) -> None:
    async def ask() -> AsyncIterator[pb.ClassifyRequest]:
        yield request(TEXTS)
        await asyncio.Event().wait()

    call = TextClassificationStub(running.channel).ClassifyStream(ask(), timeout=0.2)
    assert await code_of_call(call) is grpc.StatusCode.DEADLINE_EXCEEDED


# Ends with an error while answers are being written, which gRPC's core does not take at the same time.


@pytest.mark.parametrize("attempt", range(20))
async def test_bytes_that_are_no_message_end_the_stream_after_the_answers_before_them(
    running: Running, attempt: int
) -> None:
    call: Any = running.channel.stream_stream("/seqserve.v1.TextClassification/ClassifyStream")
    messages = [request([], str(index)).SerializeToString() for index in range(1 + attempt % 3)]
    stream = call(iter([*messages, b"\xff\xff"]), timeout=20)
    for _ in messages:
        assert pb.ClassifyResponse.FromString(await stream.read()).HasField("error")
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("attempt", range(20))
async def test_bug_ends_the_stream_with_a_fixed_text(
    running: Running, monkeypatch: pytest.MonkeyPatch, attempt: int
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("service.api.classification._response", fail)
    requests = [*(request([], str(index)) for index in range(attempt % 3)), request(TEXTS)]
    stream = TextClassificationStub(running.channel).ClassifyStream(iter(requests), timeout=20)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await finish(stream)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (failure.value.details() or "")
