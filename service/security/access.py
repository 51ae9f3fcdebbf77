"""Access control: bearer tokens, the rights that tokens carry and the rights that methods need."""

import enum
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import PermissionDenied, Unauthenticated
from service.security.secrets_files import ReloadedFiles

SETTING = "SEQSERVE_TOKENS"
_SCHEME = "bearer "


class Right(enum.IntEnum):
    """Right that a method needs or a token carries; each right includes those before it."""

    NONE = 0
    PREDICT = 1
    ADMIN = 2


# Kubernetes probes send no tokens.
_OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
_ADMIN = frozenset({"/seqserve.v1.Models/Load", "/seqserve.v1.Models/Unload"})
_RIGHTS = {"predict": Right.PREDICT, "admin": Right.ADMIN}
_FIELDS = 3


@dataclass(frozen=True, slots=True)
class Principal:
    """Authenticated caller: the name in its token's line ("" without a token) and its right."""

    name: str
    right: Right


@dataclass(frozen=True, slots=True)
class _Entry:
    principal: Principal
    digest: bytes


ANONYMOUS = Principal("", Right.PREDICT)


class Access:
    """Checks the bearer token of each call.

    Args:
        tokens: file of lines RIGHT NAME TOKEN, reloaded when it changes. With None, every method except
            administration is open to anyone.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is wrong.
    """

    def __init__(self, tokens: Path | None = None) -> None:
        self._entries = (
            ReloadedFiles(SETTING, [tokens], lambda contents: parse_tokens(contents[0]))
            if tokens is not None
            else None
        )

    def check(self, needed: Right, context: Any) -> Principal:
        """Authenticate a call and check that its caller has the right.

        Args:
            needed: right that the method needs.
            context: gRPC context of the call; its metadata carry the token.

        Returns:
            The caller.

        Raises:
            Unauthenticated: the token is missing or unknown.
            PermissionDenied: the token does not carry the right, or no configured token does.
        """
        if self._entries is None:
            principal, entries = ANONYMOUS, []
        elif needed is Right.NONE:
            return Principal("", Right.NONE)
        else:
            entries = self._entries.value()
            principal = _principal_of(context.invocation_metadata() or (), entries)
        if principal.right >= needed:
            return principal
        if not any(entry.principal.right is Right.ADMIN for entry in entries):
            raise PermissionDenied(
                "administration is off unless admin access is set up: "
                f"{SETTING} names no token with the right admin"
            )
        raise PermissionDenied(
            f"expected a token with the right {needed.name.lower()}, "
            f"found one with {principal.right.name.lower()}"
        )


def right_for(method: str) -> Right:
    """Return the right that a method needs, given its full name /package.Service/Method."""
    if method in _OPEN:
        return Right.NONE
    return Right.ADMIN if method in _ADMIN else Right.PREDICT


def parse_tokens(data: bytes) -> list[_Entry]:
    """Parse a token file; only the sha256 of each token is kept.

    Raises:
        ValueError: a line is wrong. The message gives its number, not its text, which may hold a token.
    """
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected ASCII text, found another byte at position {error.start}") from None
    entries: list[_Entry] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != _FIELDS or words[0] not in _RIGHTS:
            raise ValueError(
                f"line {number}: expected RIGHT NAME TOKEN with a right of predict or admin, "
                f"found {len(words)} words or another right"
            )
        digest = hashlib.sha256(words[2].encode()).digest()
        if any(entry.digest == digest for entry in entries):
            raise ValueError(f"line {number}: expected a token of its own, found that of an earlier line")
        entries.append(_Entry(Principal(words[1], _RIGHTS[words[0]]), digest))
    if not entries:
        raise ValueError("expected at least one line RIGHT NAME TOKEN, found none")
    return entries


def _principal_of(metadata: Sequence[tuple[str, str | bytes]], entries: Sequence[_Entry]) -> Principal:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        raise Unauthenticated("expected metadata 'authorization: Bearer TOKEN', found none such or several")
    digest = hashlib.sha256(values[0][len(_SCHEME) :].strip().encode()).digest()
    found = None
    # Compare with every entry, so that the time taken does not reveal the position of a match.
    for entry in entries:
        if hmac.compare_digest(entry.digest, digest):
            found = entry.principal
    if found is None:
        raise Unauthenticated("expected a known token, found another")
    return found
