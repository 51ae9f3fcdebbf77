"""Conversion of errors to gRPC status, in google.rpc's rich error model."""

import math

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from service.errors import (
    AnswerTooLarge,
    BodyTooLarge,
    BytesExhausted,
    DeadlineExceeded,
    DeadlineTooNear,
    HttpBusy,
    InvalidArgument,
    ModelFailure,
    NotFound,
    NotReady,
    NotServed,
    Overloaded,
    PermissionDenied,
    SequencesExhausted,
    SequenceUnknown,
    ServiceError,
    StateNeeded,
    TooManyWatches,
    Unauthenticated,
    Unsupported,
    Withdrawn,
)

DOMAIN = "seqserve"
DETAILS_KEY = "grpc-status-details-bin"
# A client whose service config has a retryPolicy repeats the call after so many milliseconds.
PUSHBACK_KEY = "grpc-retry-pushback-ms"
# Characters: a status carries its text up to four times in metadata, of which clients accept 8 KiB. A
# character that is not ASCII takes up to twelve bytes there.
_MAX_ASCII, _MAX_OTHER = 1000, 250

_CODES: dict[type[ServiceError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    AnswerTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    BodyTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    StateNeeded: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotReady: grpc.StatusCode.UNAVAILABLE,
    NotServed: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineTooNear: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HttpBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    BytesExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SequencesExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SequenceUnknown: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    Withdrawn: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    TooManyWatches: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    ModelFailure: grpc.StatusCode.INTERNAL,
    ServiceError: grpc.StatusCode.INTERNAL,
}


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Return the gRPC code of an error's class."""
    return _CODES[type(error)]


def text_of(error: ServiceError) -> str:
    """Return the error's text, cut in the middle where it is too long for metadata."""
    return _cut(str(error))


def _cut(text: str) -> str:
    limit = _MAX_ASCII if text.isascii() else _MAX_OTHER
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def status_of(error: ServiceError, request_id: str = "") -> status_pb2.Status:
    """Return the rich status: code, text, ErrorInfo, and BadRequest or RetryInfo where they apply.

    Args:
        error: error to convert.
        request_id: id of the call, for the metadata of ErrorInfo; "": none.
    """
    metadata = {name: _cut(value) for name, value in error.metadata.items()}
    if request_id:
        metadata["request_id"] = request_id
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    ]
    if isinstance(error, InvalidArgument):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=one.field, description=_cut(one.description))
            for one in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=code_of(error).value[0], message=text_of(error), details=packed)


def trailing_metadata_of(error: ServiceError, request_id: str = "") -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata of an error: the rich status, and when to repeat the call if it may be."""
    details = (DETAILS_KEY, status_of(error, request_id).SerializeToString())
    # To wait within a call whose deadline is too near leaves it less time still.
    if not isinstance(error, Overloaded) or isinstance(error, DeadlineTooNear):
        return (details,)
    return details, (PUSHBACK_KEY, str(math.ceil(error.retry_after_s * 1000)))
