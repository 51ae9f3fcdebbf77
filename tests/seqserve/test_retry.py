"""The policy: what is tried again, how long it waits, and where it ends. Time and chance are given."""

import threading

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from hypothesis import given
from hypothesis import strategies as st

from seqserve import Overloaded, Retry, SeqserveError, Unavailable
from seqserve.arguments import MAX_TIMEOUT_S
from seqserve.errors import from_status
from seqserve.retry import Attempts, is_retryable
from tests.seqserve.test_client_errors import FULL, status

RETRY = Retry(attempts=5, first_backoff_s=0.5, most_backoff_s=2.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def failure(code: grpc.StatusCode, reason: str = "") -> SeqserveError:
    error = from_status(status(code, "the reason"))
    error.reason = reason
    return error


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_what_servers_say_of_a_request_is_final_and_what_breaks_a_call_is_not(code: grpc.StatusCode) -> None:
    broken = {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
    assert is_retryable(failure(code)) is (code in broken)
    assert is_retryable(failure(code, "SAID_BY_THE_SERVER")) is (code is grpc.StatusCode.UNAVAILABLE)


def test_overload_is_retryable_where_the_server_says_for_how_long() -> None:
    assert is_retryable(from_status(FULL))
    assert not is_retryable(Overloaded())


def test_bounds_of_waits_double_up_to_the_most() -> None:
    attempts = Attempts(RETRY, None, draw=lambda: 1.0)
    assert [attempts.next_delay_s(Unavailable()) for _ in range(5)] == [0.5, 1.0, 2.0, 2.0, None]


@given(draw=st.floats(0, 1, exclude_max=True), failures=st.integers(1, 2000))
def test_waits_lie_between_nothing_and_their_bound(draw: float, failures: int) -> None:
    attempts = Attempts(Retry(attempts=3000), None, draw=lambda: draw)
    pauses = [attempts.next_delay_s(Unavailable()) for _ in range(failures)]
    assert pauses[-1] == draw * min(2.0, 0.05 * 2 ** min(failures - 1, 60))


def test_wait_after_an_overload_is_what_the_server_says() -> None:
    assert Attempts(RETRY, None, draw=lambda: 1.0).next_delay_s(from_status(FULL)) == 1.5


@pytest.mark.parametrize(
    ("sent", "waited_s"),
    [
        (Duration(seconds=315_576_000_000), MAX_TIMEOUT_S),
        (Duration(seconds=2**63 - 1), MAX_TIMEOUT_S),
        (Duration(seconds=-5), 0.0),
        (Duration(nanos=500_000_000), 0.5),
    ],
    ids=["ten thousand years", "no duration", "negative", "half a second"],
)
def test_any_delay_that_a_server_sends_can_be_waited_for(sent: Duration, waited_s: float) -> None:
    error = from_status(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", RetryInfo(retry_delay=sent)))
    assert Attempts(RETRY, None).next_delay_s(error) == waited_s <= threading.TIMEOUT_MAX


def test_progress_starts_the_count_anew() -> None:
    attempts = Attempts(Retry(attempts=2, first_backoff_s=0.5), None, draw=lambda: 1.0)
    for _ in range(20):
        assert attempts.next_delay_s(Unavailable()) == 0.5
        attempts.record_progress()
    assert attempts.next_delay_s(Unavailable()) == 0.5
    assert attempts.next_delay_s(Unavailable()) is None


def test_attempts_have_what_is_left_of_the_timeout() -> None:
    clock = Clock()
    attempts = Attempts(RETRY, 2.0, clock=clock, draw=lambda: 1.0)
    assert attempts.remaining_s() == 2.0
    clock.now_s += 1.25
    assert attempts.remaining_s() == 0.75
    assert attempts.next_delay_s(Unavailable()) == 0.5
    clock.now_s += 0.5
    assert attempts.next_delay_s(Unavailable()) is None, (
        "a wait of 1 s does not fit in the 0.25 s that are left"
    )
    clock.now_s += 5
    assert attempts.remaining_s() == 0.0


def test_final_failures_do_not_count() -> None:
    attempts = Attempts(Retry(attempts=2, first_backoff_s=0.5), None, draw=lambda: 1.0)
    assert [attempts.next_delay_s(failure(grpc.StatusCode.INVALID_ARGUMENT)) for _ in range(3)] == [None] * 3
    assert attempts.next_delay_s(Unavailable()) == 0.5


def test_without_a_policy_every_failure_is_final() -> None:
    attempts = Attempts(None, None)
    assert attempts.remaining_s() is None
    assert attempts.next_delay_s(Unavailable()) is None


@pytest.mark.parametrize(
    "fields", [{"attempts": 0}, {"first_backoff_s": -1.0}, {"first_backoff_s": 3.0}], ids=str
)
def test_policies_without_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Retry(**fields)  # type: ignore[arg-type]
