"""Why a request gets no answer, and why a model is not served.

    ServiceError
    +-- InvalidArgument     the request is wrong: which field, what was expected, what came
    +-- NotFound            no such model or version; what there is
    +-- NotReady            the model exists but is still loading
    +-- NotServed           the version exists but was refused; which check failed
    +-- Overloaded          too much is waiting, or the deadline is too near; when to try again
    +-- Unauthenticated     no valid token came with the call
    +-- PermissionDenied    the token does not carry the right
    +-- Withdrawn           what ran the request is being taken away; it can go on elsewhere
    +-- DeadlineExceeded    the caller's deadline passed before the answer was there
    +-- TooManyWatches      the connection watches health as often as one may
    +-- Unsupported         part of the interface that this server does not serve
    +-- ModelFailure        the runtime failed on a valid request
    ModelRefused            a version failed one of its admission checks

`service.api.errors` alone turns them into gRPC status.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field: its path in the request, and what was expected and found."""

    field: str
    description: str


class ServiceError(Exception):
    """Base of all that a request may fail with; `reason` is stable and for programs, the text is for people.

    Attributes:
        reason: UPPER_SNAKE_CASE, as google.rpc.ErrorInfo wants it.
        metadata: further facts for programs.
    """

    reason = "INTERNAL"

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.metadata = dict(metadata or {})


class InvalidArgument(ServiceError):
    """The request is wrong, whatever the state of the server."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}", {"field": field})
        self.violations = (Violation(field, description),)


class NotFound(ServiceError):
    """No such model or version."""

    reason = "MODEL_NOT_FOUND"


class NotReady(ServiceError):
    """The model takes no requests yet."""

    reason = "MODEL_NOT_READY"


class NotServed(ServiceError):
    """The version was refused at load."""

    reason = "MODEL_REFUSED"


class Overloaded(ServiceError):
    """The queue is full, or what waits in it leaves no hope for the caller's deadline.

    Attributes:
        retry_after_s: when to try again, seconds.
    """

    reason = "QUEUE_FULL"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineTooNear(Overloaded):
    """The caller's deadline cannot be met at the measured cost of what it asks for and of what waits before
    it.
    """

    reason = "DEADLINE_TOO_NEAR"


class Unauthenticated(ServiceError):
    """No token came with the call, or none that is known."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The token is known and does not carry the right that the method needs."""

    reason = "PERMISSION_DENIED"


class Withdrawn(ServiceError):
    """What ran the request is being taken away, the server or the version; the request can go on
    elsewhere.
    """

    reason = "WITHDRAWN"


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class TooManyWatches(ServiceError):
    """The connection has as many calls of health's Watch open as one may have."""

    reason = "TOO_MANY_WATCHES"


class Unsupported(ServiceError):
    """Not served by this server."""

    reason = "UNSUPPORTED"


class ModelFailure(ServiceError):
    """The runtime failed; the state of the rows in that tick is lost, others go on."""

    reason = "MODEL_FAILURE"


class ModelRefused(Exception):
    """A version is not admitted.

    Attributes:
        check: which check failed, short and stable: spec, signature, provider, placement, golden, trial.
        expected, found: for people.
    """

    def __init__(self, check: str, expected: str, found: str) -> None:
        super().__init__(f"check '{check}' failed: expected {expected}, found {found}")
        self.check, self.expected, self.found = check, expected, found
