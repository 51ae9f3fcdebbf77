"""Who may call what: bearer tokens, the rights that they carry, the rights that methods need."""

import enum
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import PermissionDenied, Unauthenticated
from service.security.secrets_files import Watched

SETTING = "SEQSERVE_TOKENS"
_SCHEME = "bearer "


class Right(enum.IntEnum):
    """What a method needs or a token carries; each includes those before it."""

    NONE = 0
    PREDICT = 1
    ADMIN = 2


# Probes have no tokens.
_OPEN = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"})
_ADMIN = frozenset({"/seqserve.v1.Models/Load", "/seqserve.v1.Models/Unload"})
_RIGHTS = {"predict": Right.PREDICT, "admin": Right.ADMIN}
_FIELDS = 3


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a token: the name in its line, "" where callers have none, and his right."""

    name: str
    right: Right


@dataclass(frozen=True, slots=True)
class _Entry:
    holder: Holder
    digest: bytes


ANYONE = Holder("", Right.PREDICT)


class Access:
    """Tells whether a call may go on.

    Args:
        tokens: file of lines RIGHT NAME TOKEN, read again when it changes; None: everything but
            administration is open.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is wrong.
    """

    def __init__(self, tokens: Path | None = None) -> None:
        self._entries = (
            None if tokens is None else Watched(SETTING, [tokens], lambda contents: parse_tokens(contents[0]))
        )

    def check(self, needed: Right, context: Any) -> Holder:
        """Let a call go on that needs a right.

        Args:
            needed: what its method needs.
            context: of the call; its metadata carry the token.

        Returns:
            Who calls.

        Raises:
            Unauthenticated: no token came, or none that is known.
            PermissionDenied: the token does not carry the right, or nobody's does.
        """
        if self._entries is None:
            holder, entries = ANYONE, []
        elif needed is Right.NONE:
            return Holder("", Right.NONE)
        else:
            entries = self._entries.value()
            holder = _holder_of(context.invocation_metadata() or (), entries)
        if holder.right >= needed:
            return holder
        if not any(entry.holder.right is Right.ADMIN for entry in entries):
            raise PermissionDenied(
                f"administration is off unless admin access is set up: {SETTING} names no token with the right admin"
            )
        raise PermissionDenied(
            f"expected a token with the right {needed.name.lower()}, found one with {holder.right.name.lower()}"
        )


def right_for(method: str) -> Right:
    """The right that a method needs, given as /package.Service/Method."""
    if method in _OPEN:
        return Right.NONE
    return Right.ADMIN if method in _ADMIN else Right.PREDICT


def parse_tokens(data: bytes) -> list[_Entry]:
    """The entries of a file of tokens; of a token the digest alone is kept.

    Raises:
        ValueError: a line is wrong, named by its number; its text stays untold, for it may hold a token.
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
                f"line {number}: expected RIGHT NAME TOKEN with a right of predict or admin, found {len(words)} words or another right"
            )
        digest = hashlib.sha256(words[2].encode()).digest()
        if any(entry.digest == digest for entry in entries):
            raise ValueError(f"line {number}: expected a token of its own, found that of an earlier line")
        entries.append(_Entry(Holder(words[1], _RIGHTS[words[0]]), digest))
    if not entries:
        raise ValueError("expected at least one line RIGHT NAME TOKEN, found none")
    return entries


def _holder_of(metadata: Sequence[tuple[str, str | bytes]], entries: Sequence[_Entry]) -> Holder:
    values = [value for key, value in metadata if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lower().startswith(_SCHEME):
        raise Unauthenticated("expected metadata 'authorization: Bearer TOKEN', found none such or several")
    digest = hashlib.sha256(values[0][len(_SCHEME) :].strip().encode()).digest()
    found = None
    # All are compared, so that the time tells nothing of where a match is.
    for entry in entries:
        if hmac.compare_digest(entry.digest, digest):
            found = entry.holder
    if found is None:
        raise Unauthenticated("expected a known token, found another")
    return found
