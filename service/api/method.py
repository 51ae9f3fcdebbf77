"""Handler of one rpc method, with access control, errors, metrics, traces and logs around it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import grpc
import structlog
from prometheus_client import Counter
from structlog.contextvars import bind_contextvars

from service.api.caller import client_of, current_holding, current_request_id, may_administer, subject, trace
from service.api.errors import code_of, text_of, trailing_metadata_of
from service.api.held_bytes import CALL_BYTES, HeldBytes, Holding
from service.api.receiving import Receiving
from service.api.request_id import KEY, request_id_of
from service.api.requests import Parse, Requests
from service.api.running import RunningCalls
from service.api.yielding import yield_before_write
from service.errors import ModelFailure, Overloaded, ServiceError
from service.observability.metrics import Metrics
from service.security.access import ANONYMOUS, Access, Right, right_for
from service.transport.call import Aborted, CallBroken

if TYPE_CHECKING:  # importable only with the extra 'traces'
    from service.observability.tracing import CallTrace, Tracing

_log = structlog.get_logger(__name__)

_OK, _CANCELLED = grpc.StatusCode.OK.name, grpc.StatusCode.CANCELLED.name
_DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.name
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
# Probes and tools: their many calls are logged at level debug and not traced.
_QUIET = "/grpc."

# Seconds that a call may travel on a busy machine, and the share by which grpc rounds a timeout up.
TRANSIT_S, TIMEOUT_ROUNDING = 0.1, 0.011
# Seconds for a cancellation to follow the end of a stream of requests.
SETTLE_S = 0.01

Handler = Callable[[Any, Any], Awaitable[Any]]


class CallRecorder:
    """Counts, traces and logs calls.

    Args:
        metrics: counts calls.
        tracing: traces calls; None: no call is traced.
        logs_calls: whether to log a line for each call that ends.
    """

    def __init__(self, metrics: Metrics, tracing: "Tracing | None", logs_calls: bool) -> None:
        self.metrics = metrics
        self._tracing = tracing
        self._logs_calls = logs_calls

    def begin(
        self, method: str, metadata: Sequence[tuple[str, str | bytes]], request_id: str
    ) -> "CallTrace | None":
        """Begin and return a call's trace; None where the call is not traced."""
        if self._tracing is None or method.startswith(_QUIET):
            return None
        traced = self._tracing.begin(method, metadata, request_id)
        if traced is not None:
            trace.set(traced)
        return traced

    def log(self, method: str, code: str, seconds: float) -> None:
        """Log a call that has ended, with its principal's name if there is one."""
        if not self._logs_calls:
            return
        write = _log.debug if method.startswith(_QUIET) else _log.info
        named = {"caller": subject.get()} if subject.get() else {}
        write("call ended", method=method, code=code, seconds=round(seconds, 6), **named)


@dataclass(frozen=True, slots=True)
class Around:
    """The parts that all methods of a server share.

    Attributes:
        access: checks tokens and rights.
        recorder: counts, traces and logs calls.
        running: tracks calls.
        held: counts the bytes that calls hold.
        receiving: waits for messages.
    """

    access: Access
    recorder: CallRecorder
    running: RunningCalls
    held: HeldBytes
    receiving: Receiving


class Codec(NamedTuple):
    """The functions that make requests of bytes, and bytes of responses."""

    parse: Parse
    serialize: Callable[[Any], bytes]


class Method:
    """Rpc method; `call` is the handler that grpc gets of it, `call_for_one` if it has one response.

    To gRPC its requests are a stream of bytes, whatever they are to its servicer: gRPC reads the
    message of other methods before it calls their handler, without limits and before it is known who calls.

    Args:
        name: full name, as /package.Service/Method.
        inner: the servicer's handler, a coroutine function.
        codec: makes requests of bytes, and bytes of responses.
        is_streamed: whether requests come as a stream.
        is_awaited: whether a drain awaits its calls.
        around: what all methods share.
    """

    def __init__(
        self, name: str, inner: Handler, codec: Codec, is_streamed: bool, is_awaited: bool, around: Around
    ) -> None:
        self._name = name
        self._inner = inner
        self._codec = codec
        self._is_streamed = is_streamed
        self._is_awaited = is_awaited
        self._right = right_for(name)
        self._around = around
        self._recorder = around.recorder
        self._seconds = around.recorder.metrics.request_seconds.labels(name)
        self._by_code: dict[str, Counter] = {}

    async def call_for_one(self, context: Any) -> bytes:
        """Run a call that has one response: return its bytes, or abort with the status of an error."""
        response: bytes = await self._call(context, self._respond)
        return response

    async def call(self, context: Any) -> None:
        """Run a call that writes its responses, or abort it with the status of its error."""
        await self._call(context, self._run)

    async def _call(self, context: Any, run: Callable[[Any, Holding, float], Awaitable[Any]]) -> Any:
        started = time.monotonic()
        code = ""
        task: Any = asyncio.current_task()
        running = self._around.running
        metadata = context.invocation_metadata() or ()
        request_id = _bind_request_id(context, metadata)
        traced = self._recorder.begin(self._name, metadata, request_id)
        if self._is_awaited:
            running.add(task, context, self._name)
        try:
            self._check_access(context)
            if self._is_awaited:
                running.check_taken()
            holding = Holding(self._around.held, client_of(context))
            # gRPC sends the last response when the handler has returned it.
            task.add_done_callback(holding.close)
            holding.take(CALL_BYTES)
            current_holding.set(holding)
            return await run(context, holding, started)
        except asyncio.CancelledError:
            if (ending := running.take_error(task)) is not None:
                task.uncancel()
                await self._refuse(context, request_id, ending)
            code = code_of_cancelled(context.time_remaining(), time.monotonic() - started)
            raise
        except CallBroken as error:
            # When a connection breaks, grpc fails the pending write just before it ends the call.
            code = code_of_cancelled(context.time_remaining(), time.monotonic() - started)
            raise asyncio.CancelledError from error
        except ServiceError as error:
            await self._refuse(context, request_id, error)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # libraries in Rust raise others than Exception
            await self._fail(context, request_id, error)
        finally:
            running.remove(task)
            self._record(code or _name_of(context.code()), time.monotonic() - started, traced)

    async def _respond(self, context: Any, holding: Holding, started: float) -> bytes:
        response = self._codec.serialize(await self._run(context, holding, started))
        if len(response) > CALL_BYTES:
            holding.take(len(response))
        return response

    async def _run(self, context: Any, holding: Holding, started: float) -> Any:
        requests = Requests(context, self._codec.parse, holding, self._around.receiving)
        response = await self._inner(requests if self._is_streamed else await requests.only(), context)
        if self._is_streamed and is_over(context.time_remaining(), time.monotonic() - started):
            # grpc reports the end of a stream of requests also where the call has ended, then cancels it.
            await asyncio.sleep(SETTLE_S)
        await yield_before_write()
        return response

    def _check_access(self, context: Any) -> None:
        principal = self._around.access.check(self._right, context)
        if principal is not ANONYMOUS:
            subject.set(principal.name)
            may_administer.set(principal.right is Right.ADMIN)

    def _record(self, code: str, seconds: float, traced: "CallTrace | None") -> None:
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._recorder.metrics.requests.labels(self._name, code)
        counter.inc()
        self._seconds.observe(seconds)
        if traced is not None:
            traced.end(code)
        self._recorder.log(self._name, code, seconds)

    def _note_ending(self) -> None:
        task: Any = asyncio.current_task()
        self._around.running.note_ending(task)

    async def _refuse(self, context: Any, request_id: str, error: ServiceError) -> NoReturn:
        if isinstance(error, Overloaded):
            self._recorder.metrics.rejected.labels(error.reason).inc()
        elif isinstance(error, ModelFailure):
            _log.error("request failed", method=self._name, exc_info=error)
        await self._abort(context, request_id, error)

    async def _abort(self, context: Any, request_id: str, error: ServiceError) -> NoReturn:
        """Abort with the status of an error."""
        _drop_frames(error)
        self._note_ending()
        # Trailing metadata passed here replaces what was set before.
        metadata = (*trailing_metadata_of(error, request_id), (KEY, request_id))
        await context.abort(code_of(error), text_of(error), metadata)
        raise AssertionError("abort raises")

    async def _fail(self, context: Any, request_id: str, error: BaseException) -> NoReturn:
        """Log an unexpected exception and abort with a fixed text, which reveals nothing of it."""
        if isinstance(error, Aborted):
            raise error
        _log.error("request failed", method=self._name, exc_info=error)
        _drop_frames(error)
        await self._abort(context, request_id, ServiceError("internal error; the server's log has the trace"))


def _bind_request_id(context: Any, metadata: Sequence[tuple[str, str | bytes]]) -> str:
    """Return a call's request id, after adding it to the call's log lines, errors and trailing metadata."""
    request_id = request_id_of(metadata)
    bind_contextvars(request_id=request_id)
    current_request_id.set(request_id)
    context.set_trailing_metadata(((KEY, request_id),))
    return request_id


def code_of_cancelled(remaining: float | None, elapsed: float) -> str:
    """Return the code of a call that grpc has cancelled: DEADLINE_EXCEEDED if its time was over."""
    return _DEADLINE_EXCEEDED if is_over(remaining, elapsed) else _CANCELLED


def is_over(remaining: float | None, elapsed: float) -> bool:
    """Return whether the deadline of a call's client may have passed.

    A client whose deadline passes ends its call as one that gives up does, and its deadline is a little
    before the server's: grpc rounds a timeout up when it sends it, and the server counts it from the arrival
    of the call. So the time is over where less than that difference is left, and half of it at most.

    Args:
        remaining: seconds to the call's deadline on this server; None: it has none.
        elapsed: seconds since the call arrived.
    """
    if remaining is None:
        return False
    timeout = remaining + elapsed
    return remaining <= min(TRANSIT_S + TIMEOUT_ROUNDING * timeout, timeout / 2)


def _drop_frames(error: BaseException) -> None:
    """Drop the frames that an error has passed through, which hold the request and all that was made of it.

    grpc keeps the exception that aborts a call in the call's context, and that exception keeps this error: a
    cycle, which only a full collection would free.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None


def writing(inner: Callable[[Any, Any], AsyncIterator[Any]]) -> Handler:
    """Return a handler that writes the responses of a generator, and closes it however the call ends."""

    async def call(request: Any, context: Any) -> None:
        responses: Any = inner(request, context)
        async with aclosing(responses):
            async for response in responses:
                await context.write(response)

    return call


def _name_of(code: Any) -> str:
    """Return the name of a context.code(): a StatusCode, its number, or None for OK."""
    if code is None:
        return _OK
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, _OK)
