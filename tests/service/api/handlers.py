"""Handlers made up for tests of what every call has in common, in a server of their own."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc import aio
from prometheus_client import CollectorRegistry

from seqserve.v1.models_pb2 import GetModelRequest
from service.api.caller import may_administer, subject
from service.api.calls import CallLimits, Calls
from service.errors import InvalidArgument, ModelFailure, Overloaded
from service.observability.metrics import Metrics
from service.security.access import Access
from service.transport.server import Server
from tests.service.api.rich import finish

INSIDE = "row 17 of table users"
PATIENCE_S = 20.0
KINDS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


class Panic(BaseException):
    """Stands for the panic of a library in Rust."""


class Working:
    """Stands for what a handler makes of its request."""


class Handlers:
    """One handler of each kind; what it does is said in its request. Errors come after the first answer of a
    stream.
    """

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()
        self.is_cancelled = asyncio.Event()
        self.working: weakref.ref[Working] | None = None

    async def act(self, request: bytes, context: Any) -> None:
        working = Working()
        self.working = weakref.ref(working)
        match request:
            case b"invalid":
                raise InvalidArgument("field", "expected more, found less")
            case b"overloaded":
                raise Overloaded("full", 0.5)
            case b"failure":
                raise ModelFailure("onnxruntime failed")
            case b"bug":
                raise ZeroDivisionError(INSIDE)
            case b"panic":
                raise Panic(INSIDE)
            case b"abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "by hand")
            case b"who":
                context.set_trailing_metadata(
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
        self, server: Server, calls: Calls, channel: Any, handlers: Handlers, metrics: Metrics
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
        """Return the error of a call.

        Client and server share an event loop here. Where a refusal comes before grpc.aio has sent the
        message of a stream, it takes the failure to send that for the call's error: then this calls again.
        """
        while True:
            with pytest.raises(aio.AioRpcError) as refusal:
                await self.call(kind, request)
            if "SendMessageOperation" not in (refusal.value.debug_error_string() or ""):
                return refusal.value

    async def count(self, kind: str, code: str) -> float:
        """Calls counted, once the server has stopped: a caller may have its answer a moment before the
        handler's task has ended.
        """
        await self.server.stop(PATIENCE_S)
        labels = {"method": f"/test.Handlers/{kind}", "code": code}
        return self.metrics.registry.get_sample_value("seqserve_requests_total", labels) or 0.0


@asynccontextmanager
async def bench_of(
    access: Access | None = None,
    logs_calls: bool = False,
    limits: CallLimits = CallLimits(),
    options: Sequence[tuple[str, Any]] = (),
) -> AsyncIterator[Bench]:
    handlers, metrics = Handlers(), Metrics(CollectorRegistry())
    server = Server([])
    unawaited = {"/test.Handlers/Unawaited"}
    calls = Calls(metrics, unawaited=unawaited, access=access, logs_calls=logs_calls, limits=limits)
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
    port = server.add_port("127.0.0.1:0", None)
    server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield Bench(server, calls, channel, handlers, metrics)
    await server.stop(0)


async def hanging(bench: Bench, kind: str) -> Any:
    """A call that has reached its handler and does not end."""
    call = bench.start(kind, b"hang")
    async with asyncio.timeout(PATIENCE_S):
        await bench.handlers.is_waiting.wait()
    return call


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
