"""A gRPC server in an event loop that waits for gRPC's core itself.

It uses the part of grpcio on which its servers with threads are built. grpc.aio waits for the core in a
thread, and wakes the event loop for each of the four events of a call.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from service.transport.call import Call, Handler, Serialize
from service.transport.loop import completion_loop

Options = Sequence[tuple[str, int]]
Request = Callable[[Callable[[Any], None]], None]


class Server:
    """Accepts calls and runs their handlers.

    Args:
        options: grpc's channel arguments.

    Attributes:
        lost: done once the server has ceased to accept calls unasked; its result is the error, or None.
        calls: a task for each call, which ends once the peer has all of the answer, or has gone.
    """

    def __init__(self, options: Options) -> None:
        loop = completion_loop(asyncio.get_running_loop())
        self._loop = loop
        self._queue = loop.queue
        self._core = cygrpc.Server(tuple(options), False)
        self._core.register_completion_queue(self._queue)
        self._handlers: dict[str, tuple[Handler, Serialize]] = {}
        self._is_running = False
        self._is_stopping = False
        self._stopped: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self.calls: set[asyncio.Task[None]] = set()

    def add(self, method: str, handler: Handler, serialize: Serialize = bytes) -> None:
        """Have calls of a method answered by a handler, before `start`.

        Args:
            method: full name, as /package.Service/Method.
            handler: coroutine function, which returns the last message as bytes, or None.
            serialize: makes bytes of the messages that the handler writes.
        """
        self._handlers[method] = handler, serialize
        self._core.register_method(method)

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """Listen on an address, and return its port.

        Args:
            address: HOST:PORT or unix:PATH.
            credentials: TLS credentials; None: plaintext.

        Raises:
            RuntimeError: the address cannot be bound.
        """
        if credentials is None:
            port: int = self._core.add_http2_port(address.encode())
        else:
            port = self._core.add_http2_port(address.encode(), credentials._credentials)  # type: ignore[attr-defined]
        if not port:
            raise RuntimeError(f"expected an address that can be bound, found {address}")
        return port

    def start(self) -> None:
        """Accept calls."""
        self._core.start()
        self._is_running = True
        self._loop.users.add(self)
        queues = self._queue, self._queue
        for method, (handler, serialize) in self._handlers.items():
            self._accept(partial(self._core.request_registered_call, *queues, method), handler, serialize)
        # The path of another method, which the client chose and which may not be UTF-8, is not looked at.
        self._accept(partial(self._core.request_call, *queues), _refuse, bytes)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, cancel those that run after the grace, and wait until the core has ended all.

        A further call of this with a shorter grace shortens it.
        """
        if not self._is_running:
            return
        self._shut_down()
        cancelling = self._loop.call_later(grace_s, self._core.cancel_all_calls)
        try:
            await asyncio.shield(self._stopped)
        finally:
            cancelling.cancel()

    def end_now(self) -> None:
        """Cancel all calls without a task that waits for their end."""
        self._shut_down()
        self._core.cancel_all_calls()

    async def calls_ended(self) -> None:
        """Wait until gRPC's core has finished every call that was accepted."""
        while self.calls:
            await asyncio.wait(self.calls)

    def _accept(self, request: Request, handler: Handler, serialize: Serialize) -> None:
        """Start calls, one after the other.

        Args:
            request: asks the core for the next call, whose event a function takes.
            handler: answers them.
            serialize: makes bytes of the messages that the handler writes.
        """

        def take(event: Any) -> None:
            # A request without a call has ended because the server stops, or because its core has failed.
            try:
                if event.success:
                    self._run(event, handler, serialize)
            finally:
                if not self._is_stopping:
                    ask() if event.success else self._lose(None)

        def ask() -> None:
            try:
                request(take)
            except Exception as error:
                self._lose(error)

        ask()

    def _lose(self, error: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(error)

    def _run(self, event: Any, handler: Handler, serialize: Serialize) -> None:
        task = Call(event, self._loop, serialize).start(handler)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    def _shut_down(self) -> None:
        if not self._is_stopping:
            self._is_stopping = True
            self._core.shutdown(self._queue, self._end)

    def _end(self, _: Any) -> None:
        self._core.destroy()
        self._loop.users.discard(self)
        if not self._stopped.done():
            self._stopped.set_result(None)


async def _refuse(call: Call) -> None:
    await call.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
