"""The real server refuses requests whose answers a client would not take, and says why."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from seqserve import Client, InvalidArgument
from seqserve.v1 import models_pb2 as models
from seqserve.v1.sequences_pb2 import SequenceInput
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.service.api.rich import finish, status_in, unpack

SMALL: Final = 1 << 16


@pytest_asyncio.fixture(scope="module")
async def small_server(tiny_repository: Path) -> AsyncIterator[ServerProcess]:
    """A server of the tiny models whose answers have at most 64 KiB."""
    settings = {"MAX_ANSWER_BYTES": str(SMALL), "MAX_ITEMS": "1000"}
    async with ServerProcess(tiny_repository, settings) as server:
        yield server


@pytest_asyncio.fixture
async def small(small_server: ServerProcess) -> AsyncIterator[Calls]:
    """Calls by a client that takes no more than that server sends."""
    async with small_server.channel(max_receive_message_length=SMALL) as channel:
        yield Calls(channel)


async def refusal_of(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Return the code of a refused call, its reason, and what the server says."""
    with pytest.raises(aio.AioRpcError) as refusal:
        await finish(call)
    status = status_in(refusal.value)
    return refusal.value.code(), unpack(status)["ErrorInfo"].reason, status.message


TOO_LARGE: Final = (grpc.StatusCode.INVALID_ARGUMENT, "ANSWER_TOO_LARGE")


async def test_scores_above_four_mebibytes_are_refused_with_what_to_do(tiny: Calls) -> None:
    texts = ["ab" * 49_999 + "c"] * 11
    *found, message = await refusal_of(tiny.score(texts))
    assert tuple(found) == TOO_LARGE
    assert message == (
        "texts: expected a request whose answer has at most 4194304 bytes (SEQSERVE_MAX_ANSWER_BYTES), "
        "found one of up to 4400292; ask for fewer texts per call"
    )


def test_python_client_raises_it_at_once(tiny_server: ServerProcess) -> None:
    with Client(tiny_server.address) as client, pytest.raises(InvalidArgument) as refusal:
        client.score(["ab" * 49_999] * 11, model="letters")
    assert refusal.value.reason == "ANSWER_TOO_LARGE"
    assert refusal.value.metadata["max_answer_bytes"] == "4194304"
    assert [one.field for one in refusal.value.violations] == ["texts"]


@pytest.mark.parametrize(
    ("rpc", "few", "many"),
    [
        ("score", ["ab" * 4000] * 2, ["ab" * 4000] * 3),
        ("classify", ["good film"] * 300, ["good film"] * 1000),
        ("infer", [SequenceInput(text="good film")] * 300, [SequenceInput(text="good film")] * 1000),
        ("forecast", [[[1.0] * 5] * 7] * 100, [[[1.0] * 5] * 7] * 300),
    ],
)
async def test_limit_is_that_of_the_setting(small: Calls, rpc: str, few: Any, many: Any) -> None:
    assert len(await getattr(small, rpc)(few)) == len(few)
    assert (await refusal_of(getattr(small, rpc)(many)))[:2] == TOO_LARGE


async def test_list_has_model_json_only_when_asked(small: Calls) -> None:
    names = ["letters", "letters-gru", "moods", "prices"]
    listed = (await small.models.List(models.ListModelsRequest())).models
    assert [(one.name, one.spec_json) for one in listed] == [(name, "") for name in names]
    specs = [(await small.models.Get(models.GetModelRequest(model=name))).spec_json for name in names]
    whole = (await small.models.List(models.ListModelsRequest(include_spec=True))).models
    assert [one.spec_json for one in whole] == specs


async def test_reflection_does_not_echo_more_than_a_client_takes(small: Calls) -> None:
    call = small.channel.stream_stream(
        f"/{reflection.SERVICE_NAME}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    long = reflection_pb2.ServerReflectionRequest(file_containing_symbol="a" * (2 * SMALL))
    assert (await refusal_of(call(iter([long]))))[:2] == TOO_LARGE
    fits = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")
    [answer] = [one async for one in call(iter([fits]))]
    assert answer.file_descriptor_response.file_descriptor_proto
