"""Says in a sentence what a failed call means to somebody at a page: what happened, and what to do."""

from typing import Final

from seqserve.cli.connecting import explain
from seqserve.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotServed,
    Overloaded,
    PermissionDenied,
    SeqserveError,
    Unauthenticated,
    Unavailable,
)

_ADVICE: Final[dict[type[SeqserveError], str]] = {
    Unauthenticated: "start the playground with a token that the server knows, --token-file FILE",
    PermissionDenied: "start the playground with a token that has the right, --token-file FILE",
    NotFound: "choose another model or version; the page Models lists those that serve",
    NotServed: "the page Models shows the check that the version failed",
    DeadlineExceeded: "ask for less, or start the playground with a larger --timeout SECONDS",
    Unavailable: "try again in a moment",
}


def sentence(error: SeqserveError, address: str, *, has_tls: bool) -> str:
    """Describe the failure of a call.

    Args:
        error: What the call ended with.
        address: Address of the server.
        has_tls: Whether the connection is encrypted.
    """
    if (explained := explain(error, address, has_tls=has_tls)) is not None:
        return _capitalized(explained)
    if isinstance(error, Cancelled):
        return "The call was cancelled before its answer."
    parts = [str(error) or f"the server answered {error.code.name}"]
    if isinstance(error, InvalidArgument):
        parts += [f"{field}: {what}" for field, what in error.violations if what not in parts[0]]
    if isinstance(error, Overloaded):
        parts.append(_when(error))
    else:
        parts += [advice for kind, advice in _ADVICE.items() if isinstance(error, kind)]
    return _capitalized("; ".join(parts))


def _when(error: Overloaded) -> str:
    """Say when to try again."""
    if error.retry_after_s is None:
        return "the server has no capacity for it now: try again in a moment"
    return f"the server has no capacity for it now: try again in {error.retry_after_s:.3g} s"


def _capitalized(text: str) -> str:
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return ended[:1].upper() + ended[1:]
