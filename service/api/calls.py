"""Wrapping of rpc handlers, done once, when a servicer is added.

A wrapped handler checks access, turns errors into a status, counts, times, traces and logs its calls, and
hides the text of unexpected exceptions from the client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from service.api.answer_limits import bounded
from service.api.held_bytes import HeldBytes, min_held_bytes
from service.api.method import Around, CallRecorder, Codec, Method, writing
from service.api.parsing import parser
from service.api.receiving import Receiving
from service.api.running import RunningCalls
from service.observability.metrics import Metrics
from service.security.access import Access
from service.tasks.limits import MAX_ANSWER_BYTES
from service.transport.call import Handler, Serialize
from service.transport.server import Server

if TYPE_CHECKING:  # importable only with the extra 'traces'
    from service.observability.tracing import Tracing


async def has_memory() -> bool:
    """Return that the process is not short of memory, whatever it uses."""
    return False


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds on what the messages of all calls may be.

    Attributes:
        held_bytes: bytes that calls may hold in all.
        message_bytes: largest message that a client may send.
        fields: fields that a message may have, repeated ones each.
        answer_bytes: largest message that the server sends.
    """

    held_bytes: int = 1 << 30
    message_bytes: int = 4 << 20
    fields: int = 10_000
    answer_bytes: int = MAX_ANSWER_BYTES


class Calls:
    """Stands in for the server when servicers are added, and adds their wrapped handlers to servers.

    Args:
        metrics: counts calls.
        unawaited: methods that only watch; a drain does not await their calls.
        access: checks tokens and rights.
        tracing: traces calls; None: no call is traced.
        logs_calls: whether to log a line for each call that ends.
        limits: bounds on the messages of all calls.
        is_short_of_memory: returns whether the process is about to run out of memory.

    Attributes:
        running: calls in progress, without those of `unawaited`.
        held: bytes that calls hold.
        receiving: calls that wait for a message; `watch` must run beside them.
    """

    def __init__(
        self,
        metrics: Metrics,
        unawaited: Collection[str] = (),
        access: Access | None = None,
        tracing: "Tracing | None" = None,
        logs_calls: bool = False,
        limits: CallLimits = CallLimits(),
        is_short_of_memory: Callable[[], Awaitable[bool]] = has_memory,
    ) -> None:
        self.running = RunningCalls()
        self.held = HeldBytes(limits.held_bytes, min_held_bytes(limits.message_bytes))
        self.receiving = Receiving(self.running, limits.message_bytes, is_short_of_memory)
        self._handlers: dict[str, tuple[Handler, Serialize]] = {}
        self._unawaited = frozenset(unawaited)
        recorder = CallRecorder(metrics, tracing, logs_calls)
        self._limits = limits
        self._around = Around(access or Access(), recorder, self.running, self.held, self.receiving)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Do nothing: generated code also registers every handler by name."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Wrap a service's handlers and keep them; the signature is that of grpcio's servers."""
        for short_name, handler in method_handlers.items():
            name = f"/{service_name}/{short_name}"
            self._handlers[name] = self._wrapped(name, handler)

    def register(self, server: Server) -> None:
        """Add the wrapped handlers to a server that has not been started."""
        for name, (handler, serialize) in self._handlers.items():
            server.add(name, handler, serialize)

    def handler_of(self, name: str) -> tuple[Handler, Serialize]:
        """Return the wrapped handler of a method by its full name, and what makes bytes of its answers."""
        return self._handlers[name]

    def _wrapped(self, name: str, handler: Any) -> tuple[Handler, Serialize]:
        inner = handler.stream_stream or handler.stream_unary or handler.unary_stream or handler.unary_unary
        if handler.response_streaming and not asyncio.iscoroutinefunction(inner):
            inner = writing(inner)
        deserializer = handler.request_deserializer
        parse = parser(deserializer, self._limits.fields) if deserializer else bytes
        serialize = bounded(handler.response_serializer or bytes, self._limits.answer_bytes)
        codec = Codec(parse, serialize)
        method = Method(
            name, inner, codec, handler.request_streaming, name not in self._unawaited, self._around
        )
        return (method.call if handler.response_streaming else method.call_for_one), serialize
