"""Exceptions raised by failed calls.

The client never raises a bare grpc.RpcError: it is the `__cause__` of one of these.

SeqserveError              every failed call: `code`, `reason`, `metadata`
├── InvalidArgument        the request is wrong; `violations` names the fields
│   ├── WrongType          the client refused an argument of the wrong type; also a TypeError
│   └── WrongValue         the client refused an argument's value; also a ValueError
├── NotFound               unknown model, or the version is not served
├── NotServed              the version exists and failed admission; the message names the check
├── Unauthenticated        the token is missing or unknown
├── PermissionDenied       the token lacks the right that the method needs
├── Overloaded             the server has no capacity now; retry after `retry_after_s`
├── DeadlineExceeded       no answer within `timeout_s`
├── Unavailable            no connection, or the server is shutting down; `address` says where
├── Unimplemented          the server does not implement the method or option
├── Cancelled              the server or the client ended the call before its answer
│   └── ClientClosed       the client or the stream was closed; also a RuntimeError
├── ServerFailure          any other failure: a fault of the server, not of the request
└── WrongContext           used in another process or event loop than its own; also a RuntimeError
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
    """One field of a request that failed validation.

    Attributes:
        field: Path of the field, such as `texts[2]`.
        description: The expected value or bound, and the value found.
    """

    field: str
    description: str


class SeqserveError(Exception):
    """Base class of every failed call; `str()` returns the server's message.

    Attributes:
        code: The gRPC status code.
        reason: The server's constant for this failure (google.rpc.ErrorInfo); empty if it sent none.
        metadata: Names and limits that the server sent with the failure (google.rpc.ErrorInfo).
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
    """The request is invalid, and sending it again gives the same error.

    Attributes:
        violations: The invalid fields (google.rpc.BadRequest); empty if the server named none.
    """

    kind = grpc.StatusCode.INVALID_ARGUMENT
    violations: tuple[Violation, ...] = ()


class WrongType(InvalidArgument, TypeError):
    """The client refused an argument of the wrong type, and sent nothing."""


class WrongValue(InvalidArgument, ValueError):
    """The client refused the value of an argument, and sent nothing."""


class NotFound(SeqserveError):
    """The model is unknown, or the requested version is not served."""

    kind = grpc.StatusCode.NOT_FOUND


class NotServed(SeqserveError):
    """The version exists but failed a check at load; the message names the check."""

    kind = grpc.StatusCode.FAILED_PRECONDITION


class Unauthenticated(SeqserveError):
    """The server requires a token, and the call carried none or an unknown one."""

    kind = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(SeqserveError):
    """The token lacks the right that the method needs."""

    kind = grpc.StatusCode.PERMISSION_DENIED


class Overloaded(SeqserveError):
    """The server rejected the request at once because it has no capacity for it.

    Attributes:
        retry_after_s: Seconds until the server expects to have capacity (google.rpc.RetryInfo), or None if
            it did not say.
    """

    kind = grpc.StatusCode.RESOURCE_EXHAUSTED
    retry_after_s: float | None = None


class DeadlineExceeded(SeqserveError):
    """No answer arrived within the call's timeout."""

    kind = grpc.StatusCode.DEADLINE_EXCEEDED


class Unavailable(SeqserveError):
    """There is no connection to the server, or it is shutting down; a retry may succeed.

    Attributes:
        address: Address of the client where nothing answered; empty if a server sent the failure.
    """

    kind = grpc.StatusCode.UNAVAILABLE
    address: str = ""


class Unimplemented(SeqserveError):
    """The server does not implement this method or option."""

    kind = grpc.StatusCode.UNIMPLEMENTED


class Cancelled(SeqserveError):
    """The server cancelled the call, or the client was closed, before the answer arrived."""

    kind = grpc.StatusCode.CANCELLED


class ClientClosed(Cancelled, RuntimeError):
    """The client, or the stream, was closed by the program that uses it."""


class ServerFailure(SeqserveError):
    """The server failed, or sent an invalid response; `code` says which."""

    kind = grpc.StatusCode.INTERNAL


class WrongContext(SeqserveError, RuntimeError):
    """A client was used in another process or event loop than the one that it belongs to."""


# Each error of a status declares its code, so the table is built from the class hierarchy.
_ERRORS: dict[grpc.StatusCode, type[SeqserveError]] = {
    error.kind: error for error in SeqserveError.__subclasses__() if "kind" in vars(error)
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> SeqserveError:
    """Convert a failed call of grpc or grpc.aio to a SeqserveError."""
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # The details contradict the status, or cannot be parsed: use the status alone.
        status = None
    return from_status(
        status or Status(code=error.code().value[0], message=error.details() or error.code().name)
    )


def from_status(status: Status) -> SeqserveError:
    """Convert a google.rpc.Status and its details to a SeqserveError."""
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
        # ToTimedelta() would raise for a delay that no timedelta holds.
        error.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error


def _detail(status: Status, kind: type[Detail]) -> Detail:
    """Return the first detail of type `kind`, or an empty message of that type."""
    found = kind()
    for packed in status.details:
        if packed.Unpack(found):
            break
    return found
