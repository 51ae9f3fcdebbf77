"""service.security.access: rights, tokens, and that no token is told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import PermissionDenied, Unauthenticated
from service.security.access import Access, Principal, Right, parse_tokens, right_for

TOKENS = """
# RIGHT NAME TOKEN
predict shop   secret-one
predict shop   secret-two
admin   keeper secret-three
"""


class Context:
    """A call that came with this metadata."""

    def __init__(self, *values: str, key: str = "authorization") -> None:
        self._metadata = tuple((key, value) for value in values)

    def invocation_metadata(self) -> Any:
        return self._metadata


def access_of(folder: Path, text: str = TOKENS) -> Access:
    path = folder / "tokens"
    path.write_text(text)
    return Access(path)


@pytest.mark.parametrize(
    ("method", "right"),
    [
        ("/grpc.health.v1.Health/Check", Right.NONE),
        ("/grpc.health.v1.Health/Watch", Right.NONE),
        ("/grpc.health.v1.Health/List", Right.PREDICT),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Right.PREDICT),
        ("/seqserve.v1.Models/List", Right.PREDICT),
        ("/seqserve.v1.TextGeneration/Generate", Right.PREDICT),
        ("/seqserve.v1.Models/Load", Right.ADMIN),
        ("/seqserve.v1.Models/Unload", Right.ADMIN),
    ],
)
def test_method_needs_its_right(method: str, right: Right) -> None:
    assert right_for(method) is right


@pytest.mark.parametrize(
    ("token", "holder"),
    [
        ("secret-one", Principal("shop", Right.PREDICT)),
        ("secret-two", Principal("shop", Right.PREDICT)),
        ("secret-three", Principal("keeper", Right.ADMIN)),
    ],
)
def test_token_names_its_holder(tmp_path: Path, token: str, holder: Principal) -> None:
    access = access_of(tmp_path)
    assert access.check(Right.PREDICT, Context(f"Bearer {token}")) == holder
    assert access.check(Right.PREDICT, Context(f"bearer {token} ")) == holder


@pytest.mark.parametrize(
    "context",
    [
        Context(),
        Context("secret-one"),
        Context("Basic secret-one"),
        Context("Bearer"),
        Context("Bearer "),
        Context("Bearer secret"),
        Context("Bearer secret-one x"),
        Context("Bearer secret-one", "Bearer secret-one"),
        Context("Bearer secret-one", key="x-authorization"),
    ],
)
def test_missing_or_unknown_token_is_refused(tmp_path: Path, context: Context) -> None:
    access = access_of(tmp_path)
    for right in (Right.PREDICT, Right.ADMIN):
        with pytest.raises(Unauthenticated) as refusal:
            access.check(right, context)
        assert "secret" not in str(refusal.value)


def test_probe_needs_no_token(tmp_path: Path) -> None:
    assert access_of(tmp_path).check(Right.NONE, Context()) == Principal("", Right.NONE)


def test_administration_needs_the_right(tmp_path: Path) -> None:
    access = access_of(tmp_path)
    assert access.check(Right.ADMIN, Context("Bearer secret-three")).name == "keeper"
    with pytest.raises(
        PermissionDenied, match="expected a token with the right admin, found one with predict"
    ):
        access.check(Right.ADMIN, Context("Bearer secret-one"))


def test_administration_is_off_where_nobody_may(tmp_path: Path) -> None:
    for access, context in (
        (Access(), Context()),
        (access_of(tmp_path, "predict shop secret-one"), Context("Bearer secret-one")),
    ):
        with pytest.raises(PermissionDenied, match="off unless admin access is set up"):
            access.check(Right.ADMIN, context)


def test_without_tokens_everything_else_is_open() -> None:
    assert Access().check(Right.PREDICT, Context()) == Principal("", Right.PREDICT)
    assert Access().check(Right.NONE, Context()).name == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found none"),
        ("# nothing\n", "found none"),
        ("predict shop", "line 1: expected RIGHT NAME TOKEN"),
        ("predict shop secret more", "line 1"),
        ("# one\nwrite shop secret", "line 2"),
        ("predict shop secret\nadmin keeper secret", "line 2: expected a token of its own"),
    ],
)
def test_wrong_file_is_refused_by_line_and_tells_no_token(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as refusal:
        parse_tokens(text.encode())
    assert "secret" not in str(refusal.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_entries_or_refused(data: bytes) -> None:
    try:
        entries = parse_tokens(data)
    except ValueError:
        return
    assert entries


def test_entries_do_not_hold_their_token() -> None:
    assert "secret" not in repr(parse_tokens(TOKENS.encode()))
