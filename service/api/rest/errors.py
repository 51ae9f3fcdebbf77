"""Statuses of HTTP for those of gRPC, as Google's HTTP mapping of `google.rpc.Code` has them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from service.api.errors import DETAILS_KEY
from service.api.rest.handed_call import Ending
from service.errors import BodyTooLarge

HTTP_STATUSES: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_TOO_LARGE: Final = 413


def http_status_of(ending: Ending) -> int:
    """Return the HTTP status of a call's status."""
    if any(info.reason == BodyTooLarge.reason for info in _details(ending, error_details_pb2.ErrorInfo)):
        return _TOO_LARGE
    return HTTP_STATUSES[ending.code]


def headers_of(ending: Ending) -> dict[str, str]:
    """Return the headers that belong to a status: when to try again, and how to say who calls."""
    headers = {}
    for info in _details(ending, error_details_pb2.RetryInfo):
        headers["Retry-After"] = str(math.ceil(info.retry_delay.ToTimedelta().total_seconds()))
    if ending.code is grpc.StatusCode.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _details(ending: Ending, kind: Any) -> Iterator[Any]:
    """Yield the details of one kind."""
    for key, value in ending.trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                if packed.Is(kind.DESCRIPTOR):
                    detail = kind()
                    packed.Unpack(detail)
                    yield detail
