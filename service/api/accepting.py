"""Grpc server whose accept loop survives any request, and which reports when the loop has ended.

`aio.Server` accepts calls in one task. For an unknown method that task decodes the request's path, and a
path that is not UTF-8 ends the task: the listening socket is closed while the process goes on. Here a
separate task answers such calls without decoding the path. The overridden names are grpcio's private ones;
tests/service/api/test_accepting.py fails when grpcio renames them.
"""

import asyncio
from functools import partial
from typing import Any

from grpc._cython import cygrpc
from grpc.aio import _server

# Stands in grpcio's log for the path of an unknown method, whose bytes the client chose.
_UNKNOWN = "a method that is not known"

Options = list[tuple[str, int]]


class Server(_server.Server):
    """`aio.Server` without interceptors.

    Args:
        options: grpc's channel arguments.

    Attributes:
        lost: done once the accept loop has ended unasked; its result is the error, or None.
    """

    def __init__(self, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._server = _Accepting(self.lost, self._loop, None, (), (), tuple(options), None)

    async def calls_ended(self) -> None:
        """Wait until grpc's core has finished every call that was accepted."""
        while self._server.calls:
            await asyncio.wait(self._server.calls)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """Cython server that accepts calls.

    grpcio's accept loop awaits one future a method, all of them anew at each call, which costs about as much
    as everything else that a call needs before its handler runs. Here the loop gets a single future, which is
    done when accepting ends, and each call is started by the callback of its method's own request.

    Args:
        lost: see `Server`.
        arguments: arguments of grpcio's own class.

    Attributes:
        calls: a task for each call, which ends once the peer has all of the answer, or has gone.
    """

    def __init__(self, lost: "asyncio.Future[BaseException | None]", *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lost = lost
        self._handlers: dict[str, Any] = {}
        self.calls: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add_registered_method_handlers(self, method_handlers: dict[str, Any]) -> None:
        """Register handlers by /package.Service/Method, and remember them."""
        self._handlers |= method_handlers
        super().add_registered_method_handlers(method_handlers)

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[None]":
        """Accept calls of a method, or of all unknown ones; return the future that ends the accept loop."""
        if method is None:
            asyncio.get_running_loop().create_task(self._refuse_unknown()).add_done_callback(self._end)
        else:
            self._request_known(method)
        return self._ended

    def _request_known(self, method: bytes) -> None:
        """Ask grpc's core for the next call of a method."""
        super()._make_request_call_future(method).add_done_callback(partial(self._start_known, method))

    def _start_known(self, method: bytes, request: "asyncio.Task[Any]") -> None:
        """Start a call that has come, and ask for the next one."""
        has_failed = request.cancelled() or request.exception() is not None
        if has_failed or self._ended.done():
            self._end(request)
            return
        name = method.decode()
        self._start(name, cygrpc._MethodResolver([], self._handlers), request.result())
        if self.is_running():
            self._request_known(method)

    def _start(self, name: str, resolver: Any, call: Any) -> None:
        loop = asyncio.get_running_loop()
        handled = cygrpc._handle_rpc(name, resolver, (), call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(handled, call, loop, name))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    async def _refuse_unknown(self) -> None:
        """Answer calls of unknown methods with UNIMPLEMENTED, until the server stops."""
        no_methods = cygrpc._MethodResolver([], {})
        while True:
            self._start(_UNKNOWN, no_methods, await self._request_call())

    def _end(self, request: "asyncio.Task[Any]") -> None:
        """End the accept loop with the error of a request: the server stops, or grpc's core is broken."""
        error = None if request.cancelled() else request.exception()
        if not self._ended.done():
            self._ended.set_exception(error or asyncio.CancelledError())

    def _serving_task_crash_handler(self, task: "asyncio.Task[None]") -> None:
        """Report the end of the accept loop; grpcio's own handler would log the client's bytes, and stop."""
        if self.is_running() and not self._lost.done():  # a server that is being stopped is not running
            self._lost.set_result(None if task.cancelled() else task.exception())
