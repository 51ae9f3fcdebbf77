"""What every rpc has in common: rights are checked, errors become status, calls are counted and timed,
nothing unknown reaches the caller.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from grpc import aio
from prometheus_client import Counter
from structlog.contextvars import bind_contextvars

from service.api.caller import may_administer, subject, trace
from service.api.errors import DETAILS_KEY, code_of, status_of, text_of
from service.api.parsing import Malformed, checked, parser
from service.api.request_id import KEY, request_id_of
from service.errors import ModelFailure, Overloaded, ServiceError, Withdrawn
from service.observability.metrics import Metrics
from service.security.access import ANYONE, Access, Right, right_for

if TYPE_CHECKING:  # its library is there only where traces are wanted
    from service.observability.tracing import Tracing

_log = structlog.get_logger(__name__)

_OK, _CANCELLED = grpc.StatusCode.OK.name, grpc.StatusCode.CANCELLED.name
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# Probes and tools: what they ask again and again would bury the rest.
_QUIET = "/grpc."
_WITHDRAWN = "the server is stopping; go on from the text so far at another replica"

Handler = Callable[[Any, Any], Awaitable[Any]]


class Calls:
    """Stands in for the server when servicers are added to it, wraps each of their handlers, once, and adds
    them to servers.

    An aio.ServerInterceptor would do the same at every call: grpc looks the handler up through it and has it
    made anew.

    Args:
        metrics: where calls count.
        unawaited: methods whose calls do not count for `idle`: those that only watch.
        access: who may call what.
        tracing: where calls are traced; None: nowhere.
        logs_calls: each call that ends has a line in the log.
    """

    def __init__(
        self,
        metrics: Metrics,
        unawaited: Collection[str] = (),
        access: Access | None = None,
        tracing: "Tracing | None" = None,
        logs_calls: bool = False,
    ) -> None:
        self._handlers: dict[str, dict[str, Any]] = {}
        self._metrics = metrics
        self._access = access or Access()
        self._tracing = tracing
        self._logs_calls = logs_calls
        self._tasks: set[asyncio.Task[Any]] = set()
        self._withdrawn: set[asyncio.Task[Any]] = set()
        self._unawaited = frozenset(unawaited)
        self._ended = asyncio.Event()

    async def idle(self) -> None:
        """Wait until no call is running, but for those not awaited."""
        while self._tasks:
            self._ended.clear()
            await self._ended.wait()

    def withdraw(self) -> None:
        """End every call that is running, but for those not awaited, with an error that sends the caller
        elsewhere.
        """
        self._withdrawn |= self._tasks
        for task in self._tasks:
            task.cancel()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: generated code adds every handler in both ways, and the other names them."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Wrap a service's handlers and keep them; `Server.add_registered_method_handlers` has this
        signature.
        """
        self._handlers[service_name] = {
            name: self._wrapped(f"/{service_name}/{name}", handler)
            for name, handler in method_handlers.items()
        }

    def register(self, server: aio.Server) -> None:
        """Add every handler kept so far to a server that is not yet started."""
        for service_name, wrapped in self._handlers.items():
            # A grpcio that does not know registered methods finds them as generic ones.
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, wrapped),))
            server.add_registered_method_handlers(service_name, wrapped)

    def _wrapped(self, method: str, handler: Any) -> Any:
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        inner = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        if handler.response_streaming and not asyncio.iscoroutinefunction(inner):
            inner = _writing(inner)
        call = self._counted(method, inner, handler.request_streaming)
        parse = handler.request_deserializer and parser(handler.request_deserializer)
        return make(call, request_deserializer=parse, response_serializer=handler.response_serializer)

    def _counted(self, method: str, inner: Handler, is_streamed: bool) -> Handler:
        tally = _Tally(self._metrics, method)
        is_awaited = method not in self._unawaited
        right, check = right_for(method), self._access.check
        is_quiet = method.startswith(_QUIET)
        tracing = None if is_quiet else self._tracing

        async def call(request: Any, context: Any) -> Any:
            started = time.monotonic()
            is_cancelled = False
            task: Any = asyncio.current_task()
            metadata = context.invocation_metadata() or ()
            request_id = request_id_of(metadata)
            bind_contextvars(request_id=request_id)
            context.set_trailing_metadata(((KEY, request_id),))
            traced = None if tracing is None else tracing.begin(method, metadata, request_id)
            if traced is not None:
                trace.set(traced)
            if is_awaited:
                self._tasks.add(task)
            try:
                holder = check(right, context)
                if holder is not ANYONE:
                    subject.set(holder.name)
                    may_administer.set(holder.right is Right.ADMIN)
                if is_streamed:
                    request = checked(request)
                elif type(request) is Malformed:
                    raise request.error()  # noqa: TRY301 - to the errors below
                return await inner(request, context)
            except asyncio.CancelledError:
                if task in self._withdrawn:
                    task.uncancel()
                    await self._refuse(context, method, request_id, Withdrawn(_WITHDRAWN))
                is_cancelled = True
                raise
            except ServiceError as error:
                await self._refuse(context, method, request_id, error)
            except Exception as error:
                await _fail(context, method, request_id, error)
            finally:
                self._tasks.discard(task)
                self._withdrawn.discard(task)
                if not self._tasks:
                    self._ended.set()
                code, seconds = (
                    _CANCELLED if is_cancelled else _name_of(context.code()),
                    time.monotonic() - started,
                )
                tally.add(code, seconds)
                if traced is not None:
                    traced.end(code)
                if self._logs_calls:
                    log = _log.debug if is_quiet else _log.info
                    log("call ended", method=method, code=code, seconds=round(seconds, 6), **_named())

        return call

    async def _refuse(self, context: Any, method: str, request_id: str, error: ServiceError) -> NoReturn:
        if isinstance(error, Overloaded):
            self._metrics.rejected.labels(error.reason).inc()
        elif isinstance(error, ModelFailure):
            _log.error("request failed", method=method, exc_info=error)
        details = status_of(error, request_id).SerializeToString()
        # What is given here takes the place of what was set before.
        await context.abort(code_of(error), text_of(error), ((DETAILS_KEY, details), (KEY, request_id)))
        raise AssertionError("abort raises")


class _Tally:
    """One method's calls, its labels looked up once each."""

    def __init__(self, metrics: Metrics, method: str) -> None:
        self._requests = metrics.requests
        self._seconds = metrics.request_seconds.labels(method)
        self._method = method
        self._by_code: dict[str, Counter] = {}

    def add(self, code: str, seconds: float) -> None:
        """Count a call that has ended."""
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._requests.labels(self._method, code)
        counter.inc()
        self._seconds.observe(seconds)


def _writing(inner: Callable[[Any, Any], AsyncIterator[Any]]) -> Handler:
    """A handler that yields its answers, as one that writes them. Whichever way the call ends, the generator
    ends with it.
    """

    async def call(request: Any, context: Any) -> None:
        async with aclosing(inner(request, context)) as responses:  # type: ignore[type-var]  # an async generator has aclose
            async for response in responses:
                await context.write(response)

    return call


def _named() -> dict[str, str]:
    """Who called, where callers have names."""
    name = subject.get()
    return {"caller": name} if name else {}


async def _fail(context: Any, method: str, request_id: str, error: Exception) -> NoReturn:
    """An exception that nobody foresaw: the trace to the log, a fixed text to the caller."""
    if isinstance(error, aio.AbortError):
        raise error
    _log.error("request failed", method=method, exc_info=error)
    await context.abort(
        grpc.StatusCode.INTERNAL, "internal error; the server's log has the trace", ((KEY, request_id),)
    )
    raise AssertionError("abort raises")


def _name_of(code: Any) -> str:
    """The name of what context.code() gives: a StatusCode, its number, or nothing for a call that went
    well.
    """
    if code is None:
        return _OK
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, _OK)
