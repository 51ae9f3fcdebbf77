"""service.errors."""

import re

import pytest

from service import errors
from service.errors import InvalidArgument, ModelRefused, Overloaded, ServiceError, Violation, shown

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ServiceError) and kind is not ServiceError
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_reason_is_upper_snake_case_and_its_own(kind: type[ServiceError]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", kind.reason)
    assert [one.reason for one in KINDS].count(kind.reason) == 1


def test_invalid_argument_names_its_field() -> None:
    error = InvalidArgument("top_p", "expected a number in (0, 1], found 2")
    assert str(error) == "top_p: expected a number in (0, 1], found 2"
    assert error.violations == (Violation("top_p", "expected a number in (0, 1], found 2"),)
    assert error.metadata == {"field": "top_p"}


@pytest.mark.parametrize(
    "found", ["a" * (1 << 20), "\x01" * (1 << 20), b"\xff" * (1 << 20), [0.1] * (1 << 20)], ids=type
)
def test_found_value_is_shown_briefly(found: object) -> None:
    assert len(shown(found)) < 200


@pytest.mark.parametrize("found", ["", "letters", -1, 0.5, None, [0.25, 0.75]], ids=repr)
def test_short_value_is_shown_whole(found: object) -> None:
    assert shown(found) == repr(found)


def test_overloaded_says_when_to_try_again() -> None:
    assert Overloaded("full", 0.25).retry_after_s == 0.25


def test_refused_model_names_check_expected_and_found() -> None:
    error = ModelRefused("golden", "0.1", "0.2")
    assert str(error) == "check 'golden' failed: expected 0.1, found 0.2"
    assert error.check == "golden"


def test_refused_model_is_no_answer_to_a_request() -> None:
    assert not issubclass(ModelRefused, ServiceError)
