"""Reading rich errors in tests."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from service.api.errors import DETAILS_KEY

KINDS = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)


def unpack(status: status_pb2.Status) -> dict[str, Any]:
    """The details of a status by the name of their kind."""
    found: dict[str, Any] = {}
    for packed in status.details:
        [kind] = [one for one in KINDS if packed.Is(one.DESCRIPTOR)]
        packed.Unpack(message := kind())
        found[kind.__name__] = message
    return found


def status_in(error: aio.AioRpcError) -> status_pb2.Status:
    """The rich status of a failed call, which must agree with its plain one."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing[DETAILS_KEY])
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    return status


async def fields_of(call: Any) -> list[str]:
    """The fields that a call, unary or streaming, is refused for as INVALID_ARGUMENT."""
    with pytest.raises(aio.AioRpcError) as refusal:
        await finish(call)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    return [one.field for one in unpack(status_in(refusal.value))["BadRequest"].field_violations]


async def refused_with(call: Any) -> status_pb2.Status:
    """The rich status that a call fails with."""
    with pytest.raises(aio.AioRpcError) as refusal:
        await finish(call)
    return status_in(refusal.value)


async def code_of_call(call: Any) -> grpc.StatusCode:
    """The code that a call fails with."""
    with pytest.raises(aio.AioRpcError) as refusal:
        await finish(call)
    return refusal.value.code()


async def finish(call: Any) -> Any:
    """Everything that a call answers."""
    if hasattr(call, "__aiter__"):
        return [one async for one in call]
    return await call
