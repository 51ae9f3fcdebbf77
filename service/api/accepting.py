"""A grpc server whose accept loop no request can end, and that says so where something else has ended it.

`aio.Server` takes calls in one task. For a method that it does not know, that task decodes the request's
path, and a path that is not UTF-8 ends the task: the listening socket is closed, while the process goes on.
Here such calls are answered by another task, which never looks at the path. What is overridden has the names
that grpcio gives it; tests/service/api/test_accepting.py notices when it has others.
"""

import asyncio
from functools import partial
from typing import Any

from grpc._cython import cygrpc
from grpc.aio import _server

# What grpcio's log calls a method that is not known, in place of the bytes that the caller sent.
_UNKNOWN = "a method that is not known"

Options = list[tuple[str, int]]


class Server(_server.Server):
    """An `aio.Server` without interceptors.

    Args:
        options: grpc's channel arguments.

    Attributes:
        lost: done as soon as the accept loop has ended without having been told to; its result is why.
    """

    def __init__(self, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._server = _Accepting(self.lost, self._loop, None, (), (), tuple(options), None)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """The inner server, which accepts.

    Args:
        lost: see `Server`.
        arguments: those of grpcio's.
    """

    def __init__(self, lost: "asyncio.Future[BaseException | None]", *arguments: Any) -> None:
        super().__init__(*arguments)
        self._lost = lost
        self._refusals: set[asyncio.Task[None]] = set()

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        """Ask for the next call of a method, or for all those of methods that are not known.

        The accept loop cancels what it is given when it breaks off. The question itself must outlive that:
        grpc's core writes the answer into the memory that the question holds.
        """
        loop = asyncio.get_running_loop()
        known = None if method is None else super()._make_request_call_future(method)
        asked = known or loop.create_task(self._refuse_unknown())
        given: asyncio.Future[Any] = loop.create_future()
        asked.add_done_callback(partial(_hand_over, given))
        return given

    async def _refuse_unknown(self) -> None:
        """Answer calls of methods that are not known with UNIMPLEMENTED, until the server stops."""
        loop, no_methods = asyncio.get_running_loop(), cygrpc._MethodResolver([], {})
        while True:
            call = await self._request_call()
            refusal = cygrpc._handle_rpc(_UNKNOWN, no_methods, (), call, loop, False)
            task = loop.create_task(cygrpc._schedule_rpc_coro(refusal, call, loop, _UNKNOWN))
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)

    def _serving_task_crash_handler(self, task: "asyncio.Task[None]") -> None:
        """Tell that the accept loop has ended; grpcio's own would log the bytes that ended it, and stop."""
        if self.is_running() and not self._lost.done():  # one that is being stopped does not run any more
            self._lost.set_result(None if task.cancelled() else task.exception())


def _hand_over(given: "asyncio.Future[Any]", asked: "asyncio.Task[Any]") -> None:
    """Pass on what has been answered, unless nobody waits for it any more: then the call is let go."""
    error = None if asked.cancelled() else asked.exception()
    if given.done():
        return
    if asked.cancelled():
        given.cancel()
    elif error is not None:
        given.set_exception(error)
    else:
        given.set_result(asked.result())
