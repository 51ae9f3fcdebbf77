"""What every rpc has in common: errors become status, calls are counted and timed, nothing unknown reaches the caller."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn

import grpc
import structlog
from grpc import aio

from service.api.errors import DETAILS_KEY, code_of, status_of
from service.errors import Overloaded, ServiceError
from service.metrics import Metrics

_log = structlog.get_logger(__name__)


class CallInterceptor(aio.ServerInterceptor):
    """Wraps the handlers of every rpc of the server.

    Args:
        metrics: where calls count.
        unawaited: methods whose calls do not count for `idle`: those that only watch.
    """

    def __init__(self, metrics: Metrics, unawaited: Collection[str] = ()) -> None:
        self._metrics = metrics
        self._unawaited = frozenset(unawaited)
        self._running = 0
        self._ended = asyncio.Event()

    async def idle(self) -> None:
        """Wait until no call is running, but for those not awaited."""
        while self._running:
            self._ended.clear()
            await self._ended.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Look up the handler and wrap it by its kind; an unknown method has none and gets UNIMPLEMENTED from grpc."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        inner = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        wrapped = self._streaming(method, inner) if handler.response_streaming else self._unary(method, inner)
        return make(wrapped, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)

    def _unary(self, method: str, inner: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: Any) -> Any:
            with self._awaited(method), _Counted(self._metrics, method, context):
                try:
                    return await inner(request, context)
                except ServiceError as error:
                    await self._refuse(context, error)
                except Exception as error:
                    await _fail(context, method, error)

        return call

    def _streaming(self, method: str, inner: Callable[[Any, Any], Any]) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._awaited(method), _Counted(self._metrics, method, context):
                responses = inner(request, context)
                try:
                    if not hasattr(responses, "__aiter__"):  # a coroutine that writes by itself, as the health servicer's Watch
                        await responses
                        return
                    async with aclosing(responses):
                        async for response in responses:
                            yield response
                except ServiceError as error:
                    await self._refuse(context, error)
                except Exception as error:
                    await _fail(context, method, error)

        return call

    @contextmanager
    def _awaited(self, method: str) -> Iterator[None]:
        counts = method not in self._unawaited
        self._running += counts
        try:
            yield
        finally:
            self._running -= counts
            self._ended.set()

    async def _refuse(self, context: Any, error: ServiceError) -> NoReturn:
        if isinstance(error, Overloaded):
            self._metrics.rejected.labels(error.reason).inc()
        details = status_of(error).SerializeToString()
        await context.abort(code_of(error), str(error), ((DETAILS_KEY, details),))
        raise AssertionError("abort raises")


async def _fail(context: Any, method: str, error: Exception) -> NoReturn:
    """An exception that nobody foresaw: the trace to the log, a fixed text to the caller."""
    if isinstance(error, aio.AbortError):
        raise error
    _log.error("request failed", method=method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log has the trace")
    raise AssertionError("abort raises")


class _Counted:
    """Counts and times one call, whichever way it ends."""

    def __init__(self, metrics: Metrics, method: str, context: Any) -> None:
        self._metrics = metrics
        self._method = method
        self._context = context
        self._started = time.monotonic()

    def __enter__(self) -> None:
        """The call has arrived."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """The call has ended."""
        if kind is not None and issubclass(kind, (asyncio.CancelledError, GeneratorExit)):
            code = grpc.StatusCode.CANCELLED.name
        else:
            code = _name_of(self._context.code())
        self._metrics.requests.labels(self._method, code).inc()
        self._metrics.request_seconds.labels(self._method).observe(time.monotonic() - self._started)


def _name_of(code: Any) -> str:
    """The name of what context.code() gives: a StatusCode, its number, or nothing for a call that went well."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((one.name for one in grpc.StatusCode if one.value[0] == code), grpc.StatusCode.OK.name)
