"""service.api.rest.errors."""

import grpc
import pytest

from service.api import errors
from service.api.errors import DETAILS_KEY, code_of, status_of, text_of
from service.api.rest.errors import HTTP_STATUSES, headers_of, http_status_of
from service.api.rest.handed_call import Ending
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    HttpBusy,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Withdrawn,
)


def ending_of(error: ServiceError) -> Ending:
    details = status_of(error).SerializeToString()
    return Ending(code_of(error), text_of(error), ((DETAILS_KEY, details),))


def test_every_code_that_the_server_sends_has_a_status() -> None:
    assert set(errors._CODES.values()) | {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED} <= set(HTTP_STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (InvalidArgument("x", "y"), 400, {}),
        (BodyTooLarge(5), 413, {}),
        (Unauthenticated("x"), 401, {"WWW-Authenticate": "Bearer"}),
        (PermissionDenied("x"), 403, {}),
        (NotFound("x"), 404, {}),
        (Overloaded("x", 0.2), 429, {"Retry-After": "1"}),
        (HttpBusy("x", 2.0), 429, {"Retry-After": "2"}),
        (Withdrawn("x"), 503, {}),
        (DeadlineExceeded("x"), 504, {}),
        (ServiceError("x"), 500, {}),
    ],
)
def test_errors_have_their_status_and_headers(
    error: ServiceError, status: int, headers: dict[str, str]
) -> None:
    assert (http_status_of(ending_of(error)), headers_of(ending_of(error))) == (status, headers)
