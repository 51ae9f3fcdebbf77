"""Server reflection, v1alpha and v1, which has the same messages under another service name."""

from collections.abc import Sequence

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.api.calls import Calls

V1_NAME = "grpc.reflection.v1.ServerReflection"


def add_reflection(calls: Calls, services: Sequence[str]) -> None:
    """Serve reflection for the given services and for reflection itself.

    Args:
        calls: handlers of a server that has not been started.
        services: full names of the services.
    """
    servicer = reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, V1_NAME):
        calls.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
