"""seqserve.playground.errors: each status becomes what happened and what to do."""

import grpc
import pytest

from seqserve.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    SeqserveError,
    ServerFailure,
    Unauthenticated,
    Unavailable,
    Violation,
)
from seqserve.playground.errors import sentence

ADDRESS = "127.0.0.1:50051"


def said(error: SeqserveError) -> str:
    return sentence(error, ADDRESS, has_tls=False)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (Unauthenticated("no token", reason="UNAUTHENTICATED"), ["No token", "--token-file FILE"]),
        (PermissionDenied("not yours", reason="PERMISSION_DENIED"), ["Not yours", "has the right"]),
        (NotFound("model 'x'", reason="MODEL_NOT_FOUND"), ["Model 'x'", "the page Models"]),
        (DeadlineExceeded("too late", reason="DEADLINE"), ["Too late", "--timeout SECONDS"]),
        (Unavailable("draining", reason="WITHDRAWN"), ["Draining", "in a moment"]),
        (Overloaded("full", reason="QUEUE_FULL"), ["Full", "no capacity", "in a moment"]),
        (Unavailable("Connection refused"), [f"Nothing answers at {ADDRESS}", "make serve"]),
        (Cancelled(""), ["cancelled"]),
        (ServerFailure("", code=grpc.StatusCode.INTERNAL), ["INTERNAL"]),
    ],
)
def test_status_says_what_happened_and_what_to_do(error: SeqserveError, parts: list[str]) -> None:
    found = said(error)
    assert all(part in found for part in parts), found
    assert found.endswith((".", "?"))


def test_overload_says_when_to_try_again() -> None:
    error = Overloaded("full", reason="QUEUE_FULL")
    error.retry_after_s = 2.5
    assert "try again in 2.5 s" in said(error)


def test_fields_that_the_message_lacks_are_named() -> None:
    error = InvalidArgument("2 fields", reason="INVALID_ARGUMENT")
    error.violations = (Violation("top_p", "expected a number in (0, 1]"), Violation("seed", "2 fields"))
    assert said(error) == "2 fields; top_p: expected a number in (0, 1]."
