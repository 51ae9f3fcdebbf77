"""service.api.errors."""

from base64 import b64encode
from urllib.parse import quote

import grpc
import pytest

from service import errors
from service.api.errors import (
    DETAILS_KEY,
    DOMAIN,
    PUSHBACK_KEY,
    code_of,
    status_of,
    text_of,
    trailing_metadata_of,
)
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
from tests.service.api.rich import unpack

CODES = {
    AnswerTooLarge("texts", 5, 4, "ask for less"): grpc.StatusCode.INVALID_ARGUMENT,
    BodyTooLarge(5): grpc.StatusCode.INVALID_ARGUMENT,
    StateNeeded("generated", "words", 3): grpc.StatusCode.INVALID_ARGUMENT,
    InvalidArgument("field", "wrong"): grpc.StatusCode.INVALID_ARGUMENT,
    NotFound("none"): grpc.StatusCode.NOT_FOUND,
    NotReady("loading"): grpc.StatusCode.UNAVAILABLE,
    NotServed("refused"): grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded("full", 0.5): grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineTooNear("too near", 0.5): grpc.StatusCode.RESOURCE_EXHAUSTED,
    BytesExhausted("full", 0.5): grpc.StatusCode.RESOURCE_EXHAUSTED,
    HttpBusy("busy", 0.5): grpc.StatusCode.RESOURCE_EXHAUSTED,
    SequencesExhausted("full", 0.5): grpc.StatusCode.RESOURCE_EXHAUSTED,
    SequenceUnknown("never begun"): grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated("who?"): grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied("not you"): grpc.StatusCode.PERMISSION_DENIED,
    Withdrawn("gone"): grpc.StatusCode.UNAVAILABLE,
    DeadlineExceeded("late"): grpc.StatusCode.DEADLINE_EXCEEDED,
    TooManyWatches("enough"): grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unsupported("not here"): grpc.StatusCode.UNIMPLEMENTED,
    ModelFailure("broken"): grpc.StatusCode.INTERNAL,
}


def subclasses_of(kind: type[ServiceError]) -> set[type[ServiceError]]:
    return {kind, *(one for child in kind.__subclasses__() for one in subclasses_of(child))}


def test_every_kind_of_service_error_has_a_code() -> None:
    kinds = {kind for kind in subclasses_of(ServiceError) if kind.__module__ == errors.__name__} - {
        ServiceError
    }
    assert {type(error) for error in CODES} == kinds


@pytest.mark.parametrize(
    ("error", "code"), CODES.items(), ids=lambda one: getattr(one, "name", type(one).__name__)
)
def test_code_follows_from_the_kind(error: ServiceError, code: grpc.StatusCode) -> None:
    assert code_of(error) is code
    assert status_of(error).code == code.value[0]


@pytest.mark.parametrize("error", CODES, ids=lambda error: type(error).__name__)
def test_status_carries_text_and_error_info(error: ServiceError) -> None:
    status = status_of(error)
    info = unpack(status)["ErrorInfo"]
    assert status.message == str(error)
    assert (info.reason, info.domain, dict(info.metadata)) == (error.reason, DOMAIN, error.metadata)


def test_invalid_argument_carries_its_field() -> None:
    [violation] = unpack(status_of(InvalidArgument("series[0]", "too short")))["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("series[0]", "too short")


@pytest.mark.parametrize("seconds", [0.02, 0.5, 10.0, 1 / 3])
def test_overloaded_carries_when_to_try_again(seconds: float) -> None:
    delay = unpack(status_of(Overloaded("full", seconds)))["RetryInfo"].retry_delay
    assert delay.ToNanoseconds() == round(seconds * 1e9)


@pytest.mark.parametrize(("seconds", "expected"), [(0.02, "20"), (1 / 3, "334"), (10.0, "10000")])
def test_overloaded_tells_grpc_when_to_repeat_the_call(seconds: float, expected: str) -> None:
    assert dict(trailing_metadata_of(Overloaded("full", seconds)))[PUSHBACK_KEY] == expected


@pytest.mark.parametrize(
    "error",
    [NotReady("loading"), DeadlineTooNear("too near", 0.5)],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_waiting_does_not_mend_leave_retries_to_the_client(error: ServiceError) -> None:
    assert [key for key, _ in trailing_metadata_of(error)] == [DETAILS_KEY]


@pytest.mark.parametrize(
    "error", [NotFound("none"), ModelFailure("broken")], ids=lambda error: type(error).__name__
)
def test_other_errors_carry_error_info_alone(error: ServiceError) -> None:
    assert set(unpack(status_of(error))) == {"ErrorInfo"}


@pytest.mark.parametrize("character", ["a", "%", "\U0001f600"])
def test_long_text_is_cut_so_that_a_client_takes_the_status(character: str) -> None:
    error = InvalidArgument(
        "texts[0]", f"expected something else, found {character * 50_000!r}, which is not it"
    )
    text, details = text_of(error), status_of(error, "x" * 128).SerializeToString()
    assert text.startswith("texts[0]: expected something else, found '")
    assert text.endswith("which is not it")
    assert len(quote(text, safe=" '[]:,.")) + len(b64encode(details)) < 8 << 10


def test_text_that_is_not_long_is_left_alone() -> None:
    error = NotFound("model 'x': expected one of " + ", ".join(f"model-{number}" for number in range(80)))
    assert text_of(error) == str(error) == status_of(error).message
