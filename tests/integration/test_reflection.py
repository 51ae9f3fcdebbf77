"""Reflection alone, with no .proto at hand, is enough to call every rpc: what grpcurl and graphical clients
do.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.json_format import MessageToDict, ParseDict
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2

from service.api.reflection import V1_NAME
from tests.integration.process import ServerProcess
from tests.integration.test_tasks import prices

NAMES = (V1_NAME, "grpc.reflection.v1alpha.ServerReflection")
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("seqserve.v1.TextGeneration/Generate", {"model": "letters", "prompt": "abc", "max_tokens": 5}),
    ("seqserve.v1.TextGeneration/Score", {"model": "letters", "texts": ["abc"]}),
    ("seqserve.v1.TextClassification/Classify", {"model": "moods", "texts": ["a good film"]}),
    (
        "seqserve.v1.TextClassification/ClassifyStream",
        {"model": "moods", "texts": ["a good film"], "id": "one"},
    ),
    (
        "seqserve.v1.Forecasting/Forecast",
        {"model": "prices", "series": [{"observations": [{"values": row} for row in prices(7)]}]},
    ),
    ("seqserve.v1.Sequences/Infer", {"model": "moods", "inputs": [{"text": "a good film"}]}),
    (
        "seqserve.v1.Sequences/InferStream",
        {"model": "moods", "input": {"text": "a good film"}, "id": "one", "end": True},
    ),
    ("seqserve.v1.Models/List", {}),
    ("seqserve.v1.Models/Get", {"model": "letters"}),
    ("inference.GRPCInferenceService/ServerReady", {}),
    ("inference.GRPCInferenceService/ModelMetadata", {"name": "prices"}),
    (
        "inference.GRPCInferenceService/ModelInfer",
        {
            "modelName": "moods",
            "inputs": [
                {
                    "name": "text",
                    "datatype": "BYTES",
                    "shape": [1],
                    "contents": {"bytesContents": ["Z29vZA=="]},
                }
            ],
        },
    ),
    ("grpc.health.v1.Health/Check", {"service": ""}),
]


class Reflected:
    """Descriptors asked for over the wire, in a pool of their own."""

    def __init__(self, channel: aio.Channel, name: str) -> None:
        self._channel = channel
        self._method = f"/{name}/ServerReflectionInfo"
        self.pool = descriptor_pool.DescriptorPool()
        self._seen: set[str] = set()

    async def ask(self, **fields: str) -> reflection_pb2.ServerReflectionResponse:
        call = self._channel.stream_stream(
            self._method,
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (response,) = [one async for one in call(iter([reflection_pb2.ServerReflectionRequest(**fields)]))]
        assert isinstance(response, reflection_pb2.ServerReflectionResponse)
        return response

    async def add(self, **fields: str) -> None:
        """A file and, first, all that it imports."""
        for data in (await self.ask(**fields)).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            if file.name not in self._seen:
                self._seen.add(file.name)
                for dependency in file.dependency:
                    await self.add(file_by_filename=dependency)
                self.pool.Add(file) if hasattr(self.pool, "Add") else self.pool.AddSerializedFile(data)

    async def call(self, method: str, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every answer of a method, as JSON has it."""
        service, _, name = method.partition("/")
        await self.add(file_containing_symbol=service)
        found = self.pool.FindServiceByName(service).FindMethodByName(name)
        kinds = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, True): self._channel.stream_stream,
        }
        requests = message_factory.GetMessageClass(found.input_type)
        answers = message_factory.GetMessageClass(found.output_type)
        invoke: Any = kinds[found.client_streaming, found.server_streaming](
            f"/{method}",
            request_serializer=requests.SerializeToString,
            response_deserializer=answers.FromString,
        )
        message = ParseDict(request, requests(), descriptor_pool=self.pool)
        call = invoke(iter([message]) if found.client_streaming else message)
        received = [one async for one in call] if found.server_streaming else [await call]
        return [MessageToDict(one, descriptor_pool=self.pool) for one in received]


@pytest.fixture(params=NAMES)
async def reflected(request: pytest.FixtureRequest, tiny_server: ServerProcess) -> AsyncIterator[Reflected]:
    async with tiny_server.channel() as channel:
        yield Reflected(channel, request.param)


async def test_reflection_lists_every_service(reflected: Reflected) -> None:
    listed = {one.name for one in (await reflected.ask(list_services="")).list_services_response.service}
    assert {method.partition("/")[0] for method, _ in CALLS} <= listed


@pytest.mark.parametrize(("method", "request_fields"), CALLS, ids=[method for method, _ in CALLS])
async def test_reflection_alone_is_enough_to_call(
    reflected: Reflected, method: str, request_fields: dict[str, Any]
) -> None:
    answers = await reflected.call(method, request_fields)
    assert answers
    assert all(answers)


async def test_unknown_symbol_is_a_reflection_error(reflected: Reflected) -> None:
    response = await reflected.ask(file_containing_symbol="no.such.Symbol")
    assert response.HasField("error_response")
