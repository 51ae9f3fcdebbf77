"""service.api.reflection, served in this process under both of its names."""

import pytest
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.api.reflection import V1_NAME
from tests.service.api.conftest import Running
from tests.service.api.rich import finish


@pytest.mark.parametrize("name", [reflection.SERVICE_NAME, V1_NAME])
async def test_services_are_listed(running: Running, name: str) -> None:
    call = running.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    [answer] = await finish(call(iter([reflection_pb2.ServerReflectionRequest(list_services="")])))
    assert "seqserve.v1.TextGeneration" in [one.name for one in answer.list_services_response.service]


@pytest.mark.parametrize("name", [reflection.SERVICE_NAME, V1_NAME])
async def test_symbol_is_described(running: Running, name: str) -> None:
    call = running.channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    [answer] = await finish(
        call(
            iter(
                [reflection_pb2.ServerReflectionRequest(file_containing_symbol="seqserve.v1.TextGeneration")]
            )
        )
    )
    assert answer.file_descriptor_response.file_descriptor_proto
