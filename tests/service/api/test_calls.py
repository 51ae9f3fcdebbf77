"""service.api.calls, around handlers made up for the purpose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc import aio
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from seqserve.v1.models_pb2 import GetModelRequest
from service.api.access import Access
from service.api.caller import may_administer, subject
from service.api.calls import Calls
from service.errors import InvalidArgument, Overloaded
from service.metrics import Metrics
from tests.service.api.rich import status_in, unpack

INSIDE = "row 17 of table users"
PATIENCE_S = 20.0
KINDS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


class Handlers:
    """One handler of each kind; what it does is said in its request. Errors come after the first answer of a stream."""

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()
        self.is_cancelled = asyncio.Event()

    async def act(self, request: bytes, context: Any) -> None:
        match request:
            case b"invalid":
                raise InvalidArgument("field", "expected more, found less")
            case b"overloaded":
                raise Overloaded("full", 0.5)
            case b"bug":
                raise ZeroDivisionError(INSIDE)
            case b"abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
            case b"who":
                await context.send_initial_metadata((("subject", subject.get()), ("may-administer", str(may_administer.get()))))
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

    def __init__(self, server: aio.Server, calls: Calls, channel: Any, handlers: Handlers, metrics: Metrics) -> None:
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
        """Calls counted, once the server has stopped: a caller may have its answer a moment before the handler's task has ended."""
        await self.server.stop(PATIENCE_S)
        labels = {"method": f"/test.Handlers/{kind}", "code": code}
        return self.metrics.registry.get_sample_value("seqserve_requests_total", labels) or 0.0


@asynccontextmanager
async def bench_of(access: Access | None = None) -> AsyncIterator[Bench]:
    handlers, metrics = Handlers(), Metrics(CollectorRegistry())
    server = aio.server()
    calls = Calls(server, metrics, unawaited={"/test.Handlers/Unawaited"}, access=access)
    methods: dict[str, Any] = {
        "UnaryUnary": grpc.unary_unary_rpc_method_handler(handlers.unary_unary),
        "UnaryStream": grpc.unary_stream_rpc_method_handler(handlers.unary_stream),
        "StreamUnary": grpc.stream_unary_rpc_method_handler(handlers.stream_unary),
        "StreamStream": grpc.stream_stream_rpc_method_handler(handlers.stream_stream),
        "WritesByItself": grpc.unary_stream_rpc_method_handler(handlers.writes_by_itself),
        "Unawaited": grpc.unary_unary_rpc_method_handler(handlers.unary_unary),
        "Parsed": grpc.unary_unary_rpc_method_handler(handlers.parsed, GetModelRequest.FromString),
        "ParsedStream": grpc.stream_stream_rpc_method_handler(handlers.parsed_stream, GetModelRequest.FromString),
    }
    calls.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Handlers", methods),))
    calls.add_registered_method_handlers("test.Handlers", methods)
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
    reading = asyncio.ensure_future(call.read()) if kind == "UnaryStream" else None  # the first answer comes before it hangs
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
@pytest.mark.parametrize("data", [b"\xff\xff", b"\x0a\x03\xed\xa0\x80", b"\x0a\x05ab"], ids=["garbage", "lone surrogate", "cut short"])
async def test_bytes_that_do_not_parse_are_the_callers_mistake(bench: Bench, kind: str, data: bytes) -> None:
    with capture_logs() as logs:
        error = await bench.error_of(kind, data)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    [violation] = unpack(status_in(error))["BadRequest"].field_violations
    assert violation.field == "request"
    assert violation.description.startswith(f"expected a seqserve.v1.GetModelRequest message, found {len(data)} bytes that are none")
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


# Rights. What they are is tested with service.api.access.


async def test_handler_knows_the_holder_of_the_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("admin keeper secret")
    async with bench_of(Access(tokens)) as bench:
        call = bench.channel.unary_unary("/test.Handlers/UnaryUnary")(b"who", metadata=(("authorization", "Bearer secret"),))
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
