"""Errors that end a request, and the error that refuses a model version.

    ServiceError
    +-- InvalidArgument     the request is invalid; names the field, what was expected and what was found
    |   +-- AnswerTooLarge  the answer would be larger than answers may be
    |   +-- BodyTooLarge    the body of an HTTP request is larger than bodies may be
    |   +-- StateNeeded     the text of a generation is not enough to go on from
    +-- NotFound            no such model or version; names those that exist
    +-- NotReady            the model exists but is still loading
    +-- NotServed           the version exists but was refused; names the failed check
    +-- Overloaded          the queue is full; tells when to retry
    |   +-- DeadlineTooNear the deadline cannot be met at the current load
    |   +-- BytesExhausted  requests hold as many bytes as they may
    |   +-- HttpBusy        as many HTTP requests are being answered as may be
    |   +-- SequencesExhausted  as many sequences are open as may be
    +-- SequenceUnknown     a step of a sequence that is not open; it must be begun anew
    +-- Unauthenticated     the call carries no valid token
    +-- PermissionDenied    the token does not carry the right
    +-- Withdrawn           the server or version is shutting down; the request can continue elsewhere
    +-- DeadlineExceeded    the caller's deadline passed before the answer was ready
    +-- TooManyWatches      the connection or the caller has as many watches open as it may have
    +-- Unsupported         part of the interface that this server does not serve
    +-- ModelFailure        the runtime failed on a valid request
    ModelRefused            a version failed one of its admission checks

`service.api.errors` alone turns them into gRPC status.
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = 8


def shown(found: object) -> str:
    """Return a short repr of a received value for an error's text, however long the value is."""
    return _short.repr(found)


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field: its path in the request, and what was expected and found."""

    field: str
    description: str


class ServiceError(Exception):
    """Base class of the errors that end a request; the text is for people.

    Attributes:
        reason: stable code for programs, in UPPER_SNAKE_CASE as google.rpc.ErrorInfo requires.
        metadata: further details for programs.
    """

    reason = "INTERNAL"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})


class InvalidArgument(ServiceError):
    """The request is invalid, whatever the state of the server."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", {"field": field})
        self.violations = (Violation(field, description),)


class AnswerTooLarge(InvalidArgument):
    """The answer to the request would be larger than the server's limit; it was not computed.

    Args:
        field: path in the request of what makes the answer large.
        size: size of the answer, or the largest that it may have, bytes.
        max_bytes: the limit.
        advice: what the caller can do.
    """

    reason = "ANSWER_TOO_LARGE"

    def __init__(self, field: str, size: int, max_bytes: int, advice: str) -> None:
        super().__init__(
            field,
            f"expected a request whose answer has at most {max_bytes} bytes (SEQSERVE_MAX_ANSWER_BYTES), "
            f"found one of up to {size}; {advice}",
        )
        self.metadata |= {"max_answer_bytes": str(max_bytes), "answer_bytes": str(size)}


class BodyTooLarge(InvalidArgument):
    """The body of an HTTP request, or what it holds, is larger than the server's limit.

    Args:
        max_bytes: the limit.
        setting: the setting that it is of.
    """

    reason = "BODY_TOO_LARGE"

    def __init__(self, max_bytes: int, setting: str = "SEQSERVE_HTTP_MAX_BODY_BYTES") -> None:
        super().__init__("body", f"expected at most {max_bytes} bytes ({setting}), found more")
        self.metadata["max_body_bytes"] = str(max_bytes)


class StateNeeded(InvalidArgument):
    """The text of a generation does not determine its tokens, so that it cannot go on from the text.

    Args:
        field: path in the request of the text.
        model: name of the model.
        length: characters of the text.
    """

    reason = "STATE_NEEDED"

    def __init__(self, field: str, model: str, length: int) -> None:
        super().__init__(
            field,
            f"expected none, since texts of model {model} do not determine their tokens, found {length} "
            "characters; send the last state that a message had (return_state), or the request again with "
            "its seed and without this field, and skip what has come",
        )


class NotFound(ServiceError):
    """The model or version does not exist."""

    reason = "MODEL_NOT_FOUND"


class NotReady(ServiceError):
    """The model is still loading and takes no requests yet."""

    reason = "MODEL_NOT_READY"


class NotServed(ServiceError):
    """The version was refused when it was loaded."""

    reason = "MODEL_REFUSED"


class Overloaded(ServiceError):
    """The queue is full.

    Attributes:
        retry_after_s: time after which to retry, seconds.
    """

    reason = "QUEUE_FULL"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineTooNear(Overloaded):
    """The estimated time for the request and the queue before it exceeds the caller's deadline."""

    reason = "DEADLINE_TOO_NEAR"


class HttpBusy(Overloaded):
    """The server answers as many requests over HTTP as it may at a time."""

    reason = "HTTP_BUSY"


class BytesExhausted(Overloaded):
    """The caller's requests hold as many bytes as they may at present, or all requests do."""

    reason = "BYTES_EXHAUSTED"


class SequencesExhausted(Overloaded):
    """The caller has as many sequences open as it may at present."""

    reason = "SEQUENCES_EXHAUSTED"


class SequenceUnknown(ServiceError):
    """The sequence is not open: it never was, has ended, was forgotten, or its version was unloaded."""

    reason = "SEQUENCE_UNKNOWN"


class Unauthenticated(ServiceError):
    """The call carries no token, or an unknown one."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The token is known but does not carry the right that the method needs."""

    reason = "PERMISSION_DENIED"


class Withdrawn(ServiceError):
    """The server or the version is shutting down; the request can continue on another replica."""

    reason = "WITHDRAWN"


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class TooManyWatches(ServiceError):
    """The connection has as many watches of health open as one may have, or the caller of engines."""

    reason = "TOO_MANY_WATCHES"


class Unsupported(ServiceError):
    """The server does not serve this part of the interface."""

    reason = "UNSUPPORTED"


class ModelFailure(ServiceError):
    """The runtime failed in a tick; the state of its rows is lost, other rows continue.

    Attributes:
        is_text_loggable: the text holds nothing that a caller said, so that the log may show it.
    """

    reason = "MODEL_FAILURE"
    is_text_loggable = True


class ModelRefused(Exception):
    """A version failed an admission check.

    Attributes:
        check: name of the failed check, stable: graph, provider, placement, signature, golden, ...
        expected: what the check expected, for people.
        found: what it found, for people.
    """

    def __init__(self, check: str, expected: str, found: str) -> None:
        super().__init__(f"check '{check}' failed: expected {expected}, found {found}")
        self.check, self.expected, self.found = check, expected, found
