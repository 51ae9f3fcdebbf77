"""service.api.calls, around handlers made up for the purpose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from prometheus_client import CollectorRegistry
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from seqserve.v1.models_pb2 import GetModelRequest
from service.api.caller import may_administer, subject
from service.api.calls import Calls
from service.errors import InvalidArgument, ModelFailure, Overloaded
from service.observability.metrics import Metrics
from service.security.access import Access
from tests.service.api.rich import finish, status_in, unpack

INSIDE = "row 17 of table users"
PATIENCE_S = 20.0
KINDS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


class Handlers:
    """One handler of each kind; what it does is said in its request. Errors come after the first answer of a
    stream.
    """

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()
        self.is_cancelled = asyncio.Event()

    async def act(self, request: bytes, context: Any) -> None:
        match request:
            case b"invalid":
                raise InvalidArgument("field", "expected more, found less")
            case b"overloaded":
                raise Overloaded("full", 0.5)
            case b"failure":
                raise ModelFailure("onnxruntime failed")
            case b"bug":
                raise ZeroDivisionError(INSIDE)
            case b"abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
            case b"who":
                await context.send_initial_metadata(
                    (("subject", subject.get()), ("may-administer", str(may_administer.get())))
                )
            case b"hang":
                self.is_waiting.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.is_cancelled.set()
                    raise

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        await self.act(request, context)
        return request

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await self.act(request, context)
        yield request

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            await self.act(request, context)
        return b"done"

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            await self.act(request, context)
            yield request

    async def parsed(self, request: GetModelRequest, _: Any) -> bytes:
        return request.model.encode()

    async def parsed_stream(self, requests: AsyncIterator[GetModelRequest], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request.model.encode()

    async def writes_by_itself(self, request: bytes, context: Any) -> None:
        await context.write(b"first")
        await self.act(request, context)
        await context.write(request)


class Bench:
    """A server of these handlers, wrapped, and how to call each kind with one request."""

    def __init__(
        self, server: aio.Server, calls: Calls, channel: Any, handlers: Handlers, metrics: Metrics
    ) -> None:
        self.server = server
        self.calls = calls
        self.channel = channel
        self.handlers = handlers
        self.metrics = metrics

    def start(self, kind: str, request: bytes) -> Any:
        path = f"/test.Handlers/{kind}"
        match kind:
            case "UnaryUnary" | "Unawaited" | "Parsed":
                return self.channel.unary_unary(path)(request)
            case "UnaryStream" | "WritesByItself":
                return self.channel.unary_stream(path)(request)
            case "StreamUnary":
                return self.channel.stream_unary(path)(iter([request]))
            case _:
                return self.channel.stream_stream(path)(iter([request]))

    async def call(self, kind: str, request: bytes) -> list[bytes]:
        call = self.start(kind, request)
        async with asyncio.timeout(PATIENCE_S):
            return [one async for one in call] if hasattr(call, "__aiter__") else [await call]

    async def error_of(self, kind: str, request: bytes) -> aio.AioRpcError:
        with pytest.raises(aio.AioRpcError) as refusal:
            await self.call(kind, request)
        return refusal.value

    async def count(self, kind: str, code: str) -> float:
        """Calls counted, once the server has stopped: a caller may have its answer a moment before the
        handler's task has ended.
        """
        await self.server.stop(PATIENCE_S)
        labels = {"method": f"/test.Handlers/{kind}", "code": code}
        return self.metrics.registry.get_sample_value("seqserve_requests_total", labels) or 0.0


@asynccontextmanager
async def bench_of(access: Access | None = None, logs_calls: bool = False) -> AsyncIterator[Bench]:
    handlers, metrics = Handlers(), Metrics(CollectorRegistry())
    server = aio.server()
    calls = Calls(metrics, unawaited={"/test.Handlers/Unawaited"}, access=access, logs_calls=logs_calls)
    methods: dict[str, Any] = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(handlers.unary_unary),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(handlers.unary_stream),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(handlers.stream_unary),
        "StreamStream": grpc.stream_stream_rpc_method_handler(handlers.stream_stream),
        "WritesByItself": grpc.unary_stream_rpc_method_handler(handlers.writes_by_itself),
        "Unawaited": grpc.unary_unary_rpc_method_handler(handlers.unary_unary),
        "Parsed": grpc.unary_unary_rpc_method_handler(handlers.parsed, GetModelRequest.FromString),
        "ParsedStream": grpc.stream_stream_rpc_method_handler(
            handlers.parsed_stream, GetModelRequest.FromString
        ),
    }
    calls.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Handlers", methods),))
    calls.add_registered_method_handlers("test.Handlers", methods)
    quiet: dict[str, Any] = {"Check": grpc.unary_unary_rpc_method_handler(handlers.unary_unary)}
    calls.add_registered_method_handlers("grpc.test.Probes", quiet)
    calls.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Bench(server, calls, channel, handlers, metrics)
    await server.stop(None)


@pytest_asyncio.fixture(loop_scope="session")
async def bench() -> AsyncIterator[Bench]:
    async with bench_of() as found:
        yield found


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("UnaryUnary", [b"fine"]),
        ("UnaryStream", [b"first", b"fine"]),
        ("StreamUnary", [b"done"]),
        ("StreamStream", [b"fine"]),
        ("WritesByItself", [b"first", b"fine"]),
    ],
)
async def test_good_call_passes_and_counts_as_ok(bench: Bench, kind: str, answers: list[bytes]) -> None:
    assert await bench.call(kind, b"fine") == answers
    assert await bench.count(kind, "OK") == 1


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_service_error_becomes_its_rich_status(bench: Bench, kind: str) -> None:
    error = await bench.error_of(kind, b"invalid")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = unpack(status_in(error))["BadRequest"].field_violations
    assert (violation.field, violation.description) == ("field", "expected more, found less")
    assert await bench.count(kind, "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_unforeseen_error_is_logged_and_not_told(bench: Bench, kind: str) -> None:
    with capture_logs() as logs:
        error = await bench.error_of(kind, b"bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has the trace"
    assert INSIDE not in repr(error.trailing_metadata())
    [line] = [one for one in logs if one["event"] == "request failed"]
    assert isinstance(line["exc_info"], ZeroDivisionError)
    assert await bench.count(kind, "INTERNAL") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_mistake_of_the_caller_is_no_error_in_the_log(bench: Bench, kind: str) -> None:
    with capture_logs() as logs:
        await bench.error_of(kind, b"invalid")
    assert logs == []


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


async def test_unknown_method_is_unimplemented(bench: Bench) -> None:
    with pytest.raises(aio.AioRpcError) as refusal:
        await bench.channel.unary_unary("/test.Handlers/Missing")(b"")
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_are_timed_by_method(bench: Bench) -> None:
    await bench.call("UnaryUnary", b"fine")
    await bench.server.stop(PATIENCE_S)
    labels = {"method": "/test.Handlers/UnaryUnary"}
    assert bench.metrics.registry.get_sample_value("seqserve_request_seconds_count", labels) == 1


# Waiting until no call runs.


async def hanging(bench: Bench, kind: str) -> Any:
    """A call that has reached its handler and does not end."""
    call = bench.start(kind, b"hang")
    async with asyncio.timeout(PATIENCE_S):
        await bench.handlers.is_waiting.wait()
    return call


async def test_nothing_runs_before_the_first_call(bench: Bench) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await bench.calls.idle()


async def test_idle_waits_for_the_last_call(bench: Bench) -> None:
    call = await hanging(bench, "UnaryUnary")
    await bench.call("UnaryUnary", b"fine")
    idle = asyncio.ensure_future(bench.calls.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    call.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await idle


async def test_idle_does_not_wait_for_calls_that_only_watch(bench: Bench) -> None:
    call = await hanging(bench, "Unawaited")
    async with asyncio.timeout(PATIENCE_S):
        await bench.calls.idle()
    call.cancel()


# Bytes that are no message.


@pytest.mark.parametrize("kind", ["Parsed", "ParsedStream"])
@pytest.mark.parametrize(
    "data",
    [b"\xff\xff", b"\x0a\x03\xed\xa0\x80", b"\x0a\x05ab"],
    ids=["garbage", "lone surrogate", "cut short"],
)
async def test_bytes_that_do_not_parse_are_the_callers_mistake(bench: Bench, kind: str, data: bytes) -> None:
    with capture_logs() as logs:
        error = await bench.error_of(kind, data)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = unpack(status_in(error))["BadRequest"].field_violations
    assert violation.field == "request"
    assert violation.description.startswith(
        f"expected a seqserve.v1.GetModelRequest message, found {len(data)} bytes that are none"
    )
    assert logs == []
    assert await bench.count(kind, "INVALID_ARGUMENT") == 1


@pytest.mark.parametrize("kind", ["Parsed", "ParsedStream"])
async def test_message_reaches_its_handler_parsed(bench: Bench, kind: str) -> None:
    assert await bench.call(kind, GetModelRequest(model="letters").SerializeToString()) == [b"letters"]


# Ending calls that outlast the drain.


@pytest.mark.parametrize("kind", [*KINDS, "WritesByItself"])
async def test_withdrawn_call_gets_a_status_that_says_where_to_go_on(bench: Bench, kind: str) -> None:
    call = await hanging(bench, kind)
    bench.calls.withdraw()
    with pytest.raises(aio.AioRpcError) as refusal:
        async with asyncio.timeout(PATIENCE_S):
            [one async for one in call] if hasattr(call, "__aiter__") else await call
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert unpack(status_in(refusal.value))["ErrorInfo"].reason == "WITHDRAWN"
    assert bench.handlers.is_cancelled.is_set()
    assert await bench.count(kind, "UNAVAILABLE") == 1


async def test_call_that_only_watches_is_not_withdrawn(bench: Bench) -> None:
    call = await hanging(bench, "Unawaited")
    bench.calls.withdraw()
    await bench.call("UnaryUnary", b"fine")
    assert not call.done()
    call.cancel()


# Rights. What they are is tested with service.security.access.


async def test_handler_knows_the_holder_of_the_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        call = bench.channel.unary_unary("/test.Handlers/UnaryUnary")(
            b"who", metadata=(("authorization", "Bearer secret"),)
        )
        assert dict(await call.initial_metadata()) == {"subject": "keeper", "may-administer": "True"}


async def test_handler_of_a_call_without_token_knows_no_name(bench: Bench) -> None:
    call = bench.start("UnaryUnary", b"who")
    assert dict(await call.initial_metadata()) == {"subject": "", "may-administer": "False"}


@pytest.mark.parametrize("kind", KINDS)
async def test_call_without_its_right_does_not_reach_its_handler(tmp_path: Path, kind: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        error = await bench.error_of(kind, b"hang")
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not bench.handlers.is_waiting.is_set()


# Request ids. Which are taken is tested with service.api.request_id.


async def trailing_of(
    bench: Bench, kind: str, request: bytes, request_id: str | None = None
) -> dict[str, Any]:
    """The trailing metadata of a call, however it ends."""
    metadata = None if request_id is None else (("x-request-id", request_id),)
    path = f"/test.Handlers/{kind}"
    match kind:
        case "UnaryUnary":
            call = bench.channel.unary_unary(path)(request, metadata=metadata)
        case "UnaryStream" | "WritesByItself":
            call = bench.channel.unary_stream(path)(request, metadata=metadata)
        case "StreamUnary":
            call = bench.channel.stream_unary(path)(iter([request]), metadata=metadata)
        case _:
            call = bench.channel.stream_stream(path)(iter([request]), metadata=metadata)
    async with asyncio.timeout(PATIENCE_S):
        with suppress(aio.AioRpcError):
            await finish(call)
        return dict(await call.trailing_metadata())


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


async def test_withdrawn_call_gets_its_request_id_back(bench: Bench) -> None:
    reading = asyncio.ensure_future(trailing_of(bench, "UnaryUnary", b"hang", "mine"))
    async with asyncio.timeout(PATIENCE_S):
        await bench.handlers.is_waiting.wait()
    bench.calls.withdraw()
    assert (await reading)["x-request-id"] == "mine"


@pytest.mark.parametrize("kind", KINDS)
async def test_error_names_the_request(bench: Bench, kind: str) -> None:
    error = await bench.error_of(kind, b"invalid")
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
