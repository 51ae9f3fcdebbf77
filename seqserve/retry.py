"""When a failed call is tried again, and how long to wait before: the policy, which neither sleeps nor knows
a network.

Tried again is what another server, or this one a moment later, may well answer: a lost connection or a server
    that is stopping (UNAVAILABLE), what
gRPC itself broke off (CANCELLED, INTERNAL or UNKNOWN without the details that a server of ours gives), and an
overload that says when there will be room.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from seqserve.errors import Overloaded, SeqserveError, Unavailable

_BROKEN_BY_TRANSPORT: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Retry:
    """How a client goes on after a call that broke.

    The wait before a new attempt is drawn from between 0 and a bound that starts at `first_backoff_s` and
    doubles with each attempt in a row; after an overload it is what the server says. No wait goes beyond the
    call's own timeout, which counts for all its attempts together. With the defaults the waits add up to 4.6
    s on average, 9.2 s at most: a server that restarts in 2 s is waited for.

    Attributes:
        attempts: most attempts in a row, the first one included; one that brought text or an answer starts
            the count anew.
        first_backoff_s: bound of the first wait.
        most_backoff_s: bound of every wait.
    """

    attempts: int = 10
    first_backoff_s: float = 0.05
    most_backoff_s: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: expected at least 1, found {self.attempts}")
        if not 0 <= self.first_backoff_s <= self.most_backoff_s:
            raise ValueError(
                f"expected 0 <= first_backoff_s <= most_backoff_s, found {self.first_backoff_s} and {self.most_backoff_s}"
            )


DEFAULT_RETRY: Final = Retry()


def is_passing(failure: SeqserveError) -> bool:
    """Whether the same request may well be answered elsewhere or later."""
    if isinstance(failure, Overloaded):
        return failure.retry_after_s is not None
    return isinstance(failure, Unavailable) or (failure.code in _BROKEN_BY_TRANSPORT and not failure.reason)


class Attempts:
    """The attempts at one call, and the time that they have together.

    Args:
        retry: the policy; None: there is one attempt.
        timeout_s: for all attempts from now on; None for no limit.
        clock: seconds, from any beginning.
        draw: a random number in [0, 1).
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
        """Whether there can be more than one attempt."""
        return self._retry is not None

    def left_s(self) -> float | None:
        """Timeout of an attempt that begins now; None for no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def progressed(self) -> None:
        """The running attempt has brought something that the next one need not bring again."""
        self._failures = 0

    def pause_s(self, failure: SeqserveError) -> float | None:
        """How long to wait before the next attempt, now that this one has failed; None where there is none,
        and `failure` is the call's.
        """
        if self._retry is None or not is_passing(failure):
            return None
        self._failures += 1
        if self._failures >= self._retry.attempts:
            return None
        # Beyond 2**60 the bound is the most anyway, and a float could not hold the power.
        bound_s = min(
            self._retry.most_backoff_s, self._retry.first_backoff_s * 2 ** min(self._failures - 1, 60)
        )
        after_s = failure.retry_after_s if isinstance(failure, Overloaded) else None
        pause_s = self._draw() * bound_s if after_s is None else after_s
        left_s = self.left_s()
        return pause_s if left_s is None or pause_s < left_s else None
