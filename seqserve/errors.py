"""What goes wrong with a call, as exceptions. A grpc.RpcError never leaves this package bare: it is the
`__cause__`.

SeqserveError              every failed call: `code`, `reason`, `metadata`
├── InvalidArgument        the request is wrong: field by field in `violations`
├── NotFound               no such model, or no such version serves
├── NotServed              the version is there and was refused: the check that failed
├── Unauthenticated        no token came with the call, or an unknown one
├── PermissionDenied       the token does not carry the right
├── Overloaded             no room now: try again after `retry_after_s`
├── DeadlineExceeded       no answer within `timeout_s`
├── Unavailable            no connection, or the server is stopping
├── Unimplemented          the server does not serve this yet
├── Cancelled              the call was ended on either side before its answer
└── ServerFailure          anything else: a fault of the server, not of the request
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

Detail = TypeVar("Detail", bound=Message)


class Violation(NamedTuple):
    """One thing wrong with a request.

    Attributes:
        field: path of the field, such as `texts[2]`.
        description: what is wrong with it, and the bound.
    """

    field: str
    description: str


class SeqserveError(Exception):
    """A call failed; `str()` gives the server's message.

    Attributes:
        code: gRPC status code.
        reason: the server's constant for this failure (google.rpc.ErrorInfo); empty where it gave none.
        metadata: the server's facts about it, such as names and limits (google.rpc.ErrorInfo).
    """

    kind: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.kind
        self.reason = reason
        self.metadata = dict(metadata or {})


class InvalidArgument(SeqserveError):
    """The request is wrong and will stay so.

    Attributes:
        violations: where and why (google.rpc.BadRequest); empty where the server named no field.
    """

    kind = grpc.StatusCode.INVALID_ARGUMENT
    violations: tuple[Violation, ...] = ()


class NotFound(SeqserveError):
    """No such model is known, or the version asked for does not serve."""

    kind = grpc.StatusCode.NOT_FOUND


class NotServed(SeqserveError):
    """The version is there and was refused at load; the message names the check."""

    kind = grpc.StatusCode.FAILED_PRECONDITION


class Unauthenticated(SeqserveError):
    """The server wants a token, and none that it knows came with the call."""

    kind = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(SeqserveError):
    """The token does not carry the right that the method needs."""

    kind = grpc.StatusCode.PERMISSION_DENIED


class Overloaded(SeqserveError):
    """The server refused the request at once rather than answer it late.

    Attributes:
        retry_after_s: when the server expects to have room (google.rpc.RetryInfo); None where it did not say.
    """

    kind = grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after_s: float | None = None


class DeadlineExceeded(SeqserveError):
    """There was no answer within the call's timeout."""

    kind = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(SeqserveError):
    """There is no connection to the server, or it is stopping; another try may succeed."""

    kind = grpc.StatusCode.UNAVAILABLE


class Unimplemented(SeqserveError):
    """The server does not serve this method or option."""

    kind = grpc.StatusCode.UNIMPLEMENTED


class Cancelled(SeqserveError):
    """The call was ended before its answer: by the server, or by closing the client under it."""

    kind = grpc.StatusCode.CANCELLED


class ServerFailure(SeqserveError):
    """The server failed, or broke its contract; `code` says how."""

    kind = grpc.StatusCode.INTERNAL


# The class hierarchy is the table.
_ERRORS: dict[grpc.StatusCode, type[SeqserveError]] = {
    error.kind: error for error in SeqserveError.__subclasses__()
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> SeqserveError:
    """What is behind a failed call of grpc or grpc.aio."""
    try:
        status = rpc_status.from_call(error)
    except (
        ValueError,
        DecodeError,
    ):  # details that contradict the status, or are no details: the status counts
        status = None
    return from_status(
        status or Status(code=error.code().value[0], message=error.details() or error.code().name)
    )


def from_status(status: Status) -> SeqserveError:
    """What a google.rpc.Status describes, with all that its details say."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    info = _detail(status, ErrorInfo)
    error = _ERRORS.get(code, ServerFailure)(
        status.message, code=code, reason=info.reason, metadata=info.metadata
    )
    if isinstance(error, InvalidArgument):
        error.violations = tuple(
            Violation(each.field, each.description) for each in _detail(status, BadRequest).field_violations
        )
    elif isinstance(error, Overloaded) and (retry := _detail(status, RetryInfo)).HasField("retry_delay"):
        error.retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    return error


def _detail(status: Status, kind: type[Detail]) -> Detail:
    """The first detail of that kind, or an empty one."""
    found = kind()
    for packed in status.details:
        if packed.Unpack(found):
            break
    return found
