"""Retry policy: which failed calls are retried, and after what delay.

This module neither sleeps nor uses the network.

A failure is retried if another server, or the same one a moment later, may answer: a lost connection or a
server shutting down (UNAVAILABLE); a call that gRPC itself ended (CANCELLED, INTERNAL or UNKNOWN without the
details that a seqserve server sends); and an overload with a retry delay.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from seqserve import arguments
from seqserve.errors import ClientClosed, Overloaded, SeqserveError, Unavailable, WrongValue

_TRANSPORT_CODES: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Retry:
    """Policy by which a client retries a call that failed in transit.

    The delay before a retry is random, between 0 and a bound that starts at `first_backoff_s` and doubles
    with each consecutive failure. After an overload the delay is the one the server sent. A delay never
    exceeds the call's timeout, which covers all attempts together. With the defaults the delays sum to 4.6 s
    on average and at most 9.2 s, enough to wait for a server that restarts in 2 s.

    Attributes:
        attempts: Maximum number of consecutive attempts, the first included. Text or an answer received in an
            attempt resets the count.
        first_backoff_s: Bound of the first delay, in seconds.
        most_backoff_s: Upper limit of every bound, in seconds.
    """

    attempts: int = 10
    first_backoff_s: float = 0.05
    most_backoff_s: float = 2.0

    def __post_init__(self) -> None:
        if arguments.count("attempts", self.attempts) < 1:
            raise arguments.refusal(WrongValue, "attempts", f"expected at least 1, found {self.attempts}")
        first_s = arguments.number("first_backoff_s", self.first_backoff_s)
        most_s = arguments.number("most_backoff_s", self.most_backoff_s)
        if not 0 <= first_s <= most_s <= arguments.MAX_TIMEOUT_S:
            raise arguments.refusal(
                WrongValue,
                "first_backoff_s",
                f"expected 0 <= first_backoff_s <= most_backoff_s <= {arguments.MAX_TIMEOUT_S:g}, "
                f"found {first_s:g} and {most_s:g}",
            )


DEFAULT_RETRY: Final = Retry()


def is_retryable(failure: SeqserveError) -> bool:
    """Return whether the same request may succeed on another server or later."""
    if isinstance(failure, ClientClosed):
        return False
    if isinstance(failure, Overloaded):
        return failure.retry_after_s is not None
    return isinstance(failure, Unavailable) or (failure.code in _TRANSPORT_CODES and not failure.reason)


class Attempts:
    """The attempts of one call: their count, and the timeout that they share.

    Args:
        retry: Retry policy; None allows a single attempt.
        timeout_s: Seconds for all attempts from now on; None means no limit.
        clock: Returns monotonic seconds.
        draw: Returns a random number in [0, 1).
    """

    def __init__(
        self,
        retry: Retry | None,
        timeout_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._retry = retry
        self._clock = clock
        self._draw = draw
        self._deadline = None if timeout_s is None else clock() + timeout_s
        self._failures = 0

    @property
    def may_retry(self) -> bool:
        """True if more than one attempt is allowed."""
        return self._retry is not None

    def remaining_s(self) -> float | None:
        """Return the seconds left for an attempt that starts now, or None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def record_progress(self) -> None:
        """Reset the failure count: the current attempt delivered something."""
        self._failures = 0

    def next_delay_s(self, failure: SeqserveError) -> float | None:
        """Record a failed attempt.

        Returns:
            Seconds to wait before the next attempt, or None if `failure` is final.
        """
        if self._retry is None or not is_retryable(failure):
            return None
        self._failures += 1
        if self._failures >= self._retry.attempts:
            return None
        # The exponent is limited because a larger power overflows float.
        backoff_s = self._retry.first_backoff_s * 2 ** min(self._failures - 1, 60)
        bound_s = min(self._retry.most_backoff_s, backoff_s)
        after_s = failure.retry_after_s if isinstance(failure, Overloaded) else None
        # A server may send any delay; waiting takes none that is negative or beyond the longest timeout.
        sent_s = None if after_s is None else min(max(0.0, after_s), arguments.MAX_TIMEOUT_S)
        delay_s = self._draw() * bound_s if sent_s is None else sent_s
        remaining_s = self.remaining_s()
        return delay_s if remaining_s is None or delay_s < remaining_s else None
