"""service.api.method: errors, counts, request ids and lines in the log."""

import asyncio
import gc
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from seqserve.v1.models_pb2 import GetModelRequest
from service.api.calls import has_memory
from service.api.held_bytes import HeldBytes
from service.api.method import Around, CallRecorder, Codec, Method, code_of_cancelled, writing
from service.api.receiving import Receiving
from service.api.running import RunningCalls
from service.observability.metrics import Metrics
from service.security.access import Access
from service.transport.call import CallBroken
from tests.service.api.handlers import INSIDE, KINDS, PATIENCE_S, Bench, Panic, bench_of, trailing_of
from tests.service.api.rich import status_in, unpack

# Errors.


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_service_error_becomes_its_rich_status(bench: Bench, kind: str) -> None:
    error = await bench.error_of(kind, b"invalid")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = unpack(status_in(error))["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("field", "expected more, found less")
    assert await bench.count(kind, "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
@pytest.mark.parametrize(("request_", "raised"), [(b"bug", ZeroDivisionError), (b"panic", Panic)])
async def test_unforeseen_error_is_logged_and_not_told(
    bench: Bench, kind: str, request_: bytes, raised: type[BaseException]
) -> None:
    with capture_logs() as logs:
        error = await bench.error_of(kind, request_)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has the trace"
    assert INSIDE not in repr(error.trailing_metadata())
    [line] = [one for one in logs if one["event"] == "request failed"]
    assert isinstance(line["exc_info"], raised)
    assert await bench.count(kind, "INTERNAL") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_mistake_of_the_caller_is_no_error_in_the_log(bench: Bench, kind: str) -> None:
    with capture_logs() as logs:
        await bench.error_of(kind, b"invalid")
    assert logs == []


@pytest.mark.parametrize("request_bytes", [b"invalid", b"overloaded", b"failure", b"bug"])
@pytest.mark.parametrize("kind", KINDS)
async def test_failed_call_keeps_nothing_that_only_a_collection_would_free(
    bench: Bench, kind: str, request_bytes: bytes
) -> None:
    gc.collect()
    gc.disable()
    try:
        await bench.error_of(kind, request_bytes)
        working = bench.handlers.working
        async with asyncio.timeout(PATIENCE_S):
            # The server ends its task a little later.
            while working is not None and working() is not None:  # noqa: ASYNC110 (nothing sets an Event)
                await asyncio.sleep(0.001)
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_abort_by_a_handler_keeps_its_code(bench: Bench, kind: str) -> None:
    error = await bench.error_of(kind, b"abort")
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "by hand")
    assert await bench.count(kind, "DATA_LOSS") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_refusal_for_load_counts_by_its_reason(bench: Bench, kind: str) -> None:
    error = await bench.error_of(kind, b"overloaded")
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unpack(status_in(error))["RetryInfo"].retry_delay.ToMilliseconds() == 500
    assert bench.metrics.registry.get_sample_value("seqserve_rejected_total", {"reason": "QUEUE_FULL"}) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_call_cancels_its_handler_and_counts(bench: Bench, kind: str) -> None:
    call = bench.start(kind, b"hang")
    reading = (
        asyncio.ensure_future(call.read()) if kind == "UnaryStream" else None
    )  # the first answer comes before it hangs
    async with asyncio.timeout(PATIENCE_S):
        await bench.handlers.is_waiting.wait()
        if reading is not None:
            await reading
        call.cancel()
        await bench.handlers.is_cancelled.wait()
    assert await bench.count(kind, "CANCELLED") == 1


@pytest.mark.parametrize(
    ("remaining", "elapsed", "code"),
    [
        pytest.param(None, 5.0, "CANCELLED", id="no deadline"),
        pytest.param(0.0, 5.0, "DEADLINE_EXCEEDED", id="over"),
        pytest.param(0.1, 1.2, "DEADLINE_EXCEEDED", id="call travelled, timeout rounded up"),
        pytest.param(0.9, 99.0, "DEADLINE_EXCEEDED", id="long timeout rounded up"),
        pytest.param(2.5, 99.0, "CANCELLED", id="given up before a long timeout"),
        pytest.param(0.5, 1.0, "CANCELLED", id="given up"),
        pytest.param(0.04, 0.01, "CANCELLED", id="given up soon, short timeout"),
        pytest.param(30 * 24 * 3600.0, 0.1, "CANCELLED", id="given up at once"),
    ],
)
def test_cancelled_call_is_late_if_its_time_was_over(
    remaining: float | None, elapsed: float, code: str
) -> None:
    assert code_of_cancelled(remaining, elapsed) == code


async def test_deadline_that_passes_is_counted_as_that_for_every_caller(bench: Bench) -> None:
    """Of these calls about every twentieth was counted as CANCELLED."""
    address, kinds, callers = bench.channel._channel.target.decode(), (*KINDS, "Unawaited"), 8

    def make_calls(number: int) -> None:
        with grpc.insecure_channel(address, options=[("number", number)]) as channel:
            for kind, timeout_s in product(kinds, (0.05, 0.11 + number / 1000)):
                hangs: Any = channel.stream_stream(f"/test.Handlers/{kind}")
                with pytest.raises(grpc.RpcError):
                    list(hangs(iter([b"hang"]), timeout=timeout_s))

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(asyncio.to_thread(make_calls, number) for number in range(callers)))
    counts = [await bench.count(kind, "DEADLINE_EXCEEDED") for kind in kinds]
    assert counts == [2 * callers] * len(kinds)


async def test_calls_are_timed_by_method(bench: Bench) -> None:
    await bench.call("UnaryUnary", b"fine")
    await bench.server.stop(PATIENCE_S)
    labels = {"method": "/test.Handlers/UnaryUnary"}
    assert bench.metrics.registry.get_sample_value("seqserve_request_seconds_count", labels) == 1


# A connection that breaks while an answer is written.


class BrokenContext:
    """A call whose peer is gone: a write fails before the call is cancelled."""

    def __init__(self, remaining: float | None = None) -> None:
        self._remaining = remaining

    def invocation_metadata(self) -> None:
        pass

    def set_trailing_metadata(self, _: object) -> None:
        pass

    def code(self) -> None:
        pass

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self._remaining

    has_one_message = False

    async def read(self) -> bytes:
        return b"request"

    async def write(self, _: object) -> None:
        raise CallBroken


async def writes(_: object, context: Any) -> None:
    await context.write(b"answer")


async def writes_in_a_task(_: object, context: Any) -> None:
    """Write as a two-way stream does."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(context.write(b"answer"))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def generates(_: object, __: object) -> Any:
    yield b"answer"


@pytest.mark.parametrize(
    ("remaining", "code"), [(None, "CANCELLED"), (9.0, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")]
)
@pytest.mark.parametrize(
    "inner", [writes, writes_in_a_task, writing(generates)], ids=["handler", "task", "generator"]
)
async def test_write_to_a_broken_connection_counts_as_cancelled_or_late_without_a_trace(
    inner: Callable[[Any, Any], Any], remaining: float | None, code: str
) -> None:
    metrics, running = Metrics(CollectorRegistry()), RunningCalls()
    held = HeldBytes(1 << 20)
    receiving = Receiving(running, 1 << 10, has_memory)
    around = Around(Access(), CallRecorder(metrics, None, False), running, held, receiving)
    method = Method("/test/Method", inner, Codec(bytes, bytes), False, True, around)
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(method.call(BrokenContext(remaining)))
    await asyncio.sleep(0)  # the callbacks of the call's end
    assert held.total == 0
    labels = {"method": "/test/Method", "code": code}
    assert metrics.registry.get_sample_value("seqserve_requests_total", labels) == 1
    assert logs == []
    await running.idle()


async def test_generator_ends_with_its_call() -> None:
    has_ended = False

    async def generate(_: object, __: object) -> Any:
        nonlocal has_ended
        try:
            yield b"first"
            yield b"second"
        finally:
            has_ended = True

    with pytest.raises(CallBroken):
        await writing(generate)(b"", BrokenContext())
    assert has_ended


# Request ids. Which are taken is tested with service.api.request_id.


@pytest.mark.parametrize("request_", [b"fine", b"invalid", b"overloaded", b"failure", b"bug", b"abort"])
@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_caller_gets_his_request_id_back(bench: Bench, kind: str, request_: bytes) -> None:
    assert (await trailing_of(bench, kind, request_, "order 66"))["x-request-id"] == "order 66"


@pytest.mark.parametrize("request_", [b"fine", b"invalid", b"bug"])
async def test_call_without_an_id_gets_one_of_its_own(bench: Bench, request_: bytes) -> None:
    first, second = [(await trailing_of(bench, "UnaryUnary", request_))["x-request-id"] for _ in range(2)]
    assert first
    assert second
    assert first != second


async def test_call_without_its_right_gets_its_request_id_back(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        assert (await trailing_of(bench, "UnaryUnary", b"fine", "mine"))["x-request-id"] == "mine"


@pytest.mark.parametrize("request_", [b"invalid", b"bug"], ids=["foreseen", "not foreseen"])
@pytest.mark.parametrize("kind", KINDS)
async def test_error_names_the_request(bench: Bench, kind: str, request_: bytes) -> None:
    error = await bench.error_of(kind, request_)
    assert (
        unpack(status_in(error))["ErrorInfo"].metadata["request_id"]
        == dict(error.trailing_metadata() or ())["x-request-id"]
    )


# What is logged.


@pytest.mark.parametrize("request_", [b"bug", b"failure"])
async def test_failure_is_logged_once_with_its_request_id(bench: Bench, request_: bytes) -> None:
    with capture_logs(processors=[merge_contextvars]) as logs:
        trailing = await trailing_of(bench, "UnaryUnary", request_)
    [line] = logs
    assert (line["event"], line["log_level"], line["method"]) == (
        "request failed",
        "error",
        "/test.Handlers/UnaryUnary",
    )
    assert line["request_id"] == trailing["x-request-id"]


async def lines_of(
    path: str, request: bytes, metadata: tuple[tuple[str, str], ...] = (), tokens: Path | None = None
) -> list[Any]:
    """What is logged of a call to a server that logs calls."""
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with bench_of(Access(tokens), logs_calls=True) as bench:
            async with asyncio.timeout(PATIENCE_S):
                await bench.channel.unary_unary(path)(
                    request, metadata=(("x-request-id", "mine"), *metadata)
                ).code()
            await bench.server.stop(PATIENCE_S)
    return list(logs)


@pytest.mark.parametrize(
    ("request_", "code"),
    [(b"fine", "OK"), (b"invalid", "INVALID_ARGUMENT"), (b"overloaded", "RESOURCE_EXHAUSTED")],
)
async def test_call_is_logged_when_it_ends(request_: bytes, code: str) -> None:
    [line] = await lines_of("/test.Handlers/UnaryUnary", request_)
    assert line.pop("seconds") >= 0
    expected = {
        "event": "call ended",
        "log_level": "info",
        "method": "/test.Handlers/UnaryUnary",
        "code": code,
        "request_id": "mine",
    }
    assert line == expected


async def test_logged_call_names_its_caller(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("predict shop secret")
    [line] = await lines_of(
        "/test.Handlers/UnaryUnary", b"fine", (("authorization", "Bearer secret"),), tokens
    )
    assert line["caller"] == "shop"
    assert "secret" not in repr(line)


async def test_logged_call_tells_nothing_of_what_was_said() -> None:
    lines = await lines_of(
        "/test.Handlers/Parsed", GetModelRequest(model="a secret of mine").SerializeToString()
    )
    assert "secret" not in repr(lines)


async def test_probes_are_logged_for_debugging_alone() -> None:
    [line] = await lines_of("/grpc.test.Probes/Check", b"fine")
    assert line["log_level"] == "debug"


async def test_calls_are_not_logged_unless_asked(bench: Bench) -> None:
    with capture_logs() as logs:
        await bench.call("UnaryUnary", b"fine")
        await bench.server.stop(PATIENCE_S)
    assert logs == []
