"""One call of a client: its messages, its status, and the context that handlers get of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

Metadata = Sequence[tuple[str, str | bytes]]
Handler = Callable[["Call"], Awaitable[bytes | None]]
Serialize = Callable[[Any], bytes]
# The operations that end a call, and the future that is done after them.
_Last = tuple[list[Any], "asyncio.Future[bool]"]

# gRPC's core has this many seconds or more for a call without a deadline.
_NO_DEADLINE_S = 1e18
_OK, _UNKNOWN, _CANCELLED = (
    cygrpc.StatusCode.ok,
    cygrpc.StatusCode.unknown,
    cygrpc.StatusCode.cancelled,
)


class CallBroken(Exception):
    """The client has gone, or gRPC's core has ended the call: nothing can be sent."""


class Aborted(Exception):
    """The call ends with the status that it was aborted with."""


class Call:
    """A call, from the arrival of its metadata until the client has all of its answer, or has gone.

    Its handler runs in a task, which is cancelled when the client goes or the deadline passes.

    Args:
        event: event of the core with which the call arrived.
        loop: event loop.
        serialize: makes bytes of the messages that are written.
    """

    __slots__ = (
        "_call",
        "_code",
        "_deadline",
        "_details",
        "_has_begun",
        "_is_closed",
        "_is_sending",
        "_last",
        "_loop",
        "_metadata",
        "_peer",
        "_serialize",
        "_task",
        "_trailing",
    )

    def __init__(self, event: Any, loop: asyncio.AbstractEventLoop, serialize: Serialize) -> None:
        self._call = event.call
        self._loop = loop
        self._serialize = serialize
        self._metadata: Metadata = event.invocation_metadata
        self._deadline: float = event.call_details.deadline
        self._peer = ""
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Metadata | None = None
        self._has_begun = False
        self._is_sending = False
        self._last: _Last | None = None
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def has_one_message(self) -> bool:
        """Return whether the client sends one message whatever the method takes; gRPC does not tell."""
        return False

    def start(self, handler: Handler) -> "asyncio.Task[None]":
        """Run the handler in a task, which is done when the call has ended."""
        task = self._task = self._loop.create_task(self._run(handler))
        closing = (cygrpc.ReceiveCloseOnServerOperation(0),)
        if self._call.start_server_batch(closing, self._take_close) != cygrpc.CallError.ok:
            self._close()  # the core would not tell when the client goes
        return task

    def invocation_metadata(self) -> Metadata:
        """Return the client's metadata: pairs of a key and a value."""
        return self._metadata

    def peer(self) -> str:
        """Return the client's address, as ipv4:127.0.0.1:50000."""
        if not self._peer:
            self._peer = self._call.peer().decode("utf-8", "backslashreplace")
        return self._peer

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline, None without one."""
        return None if self._deadline > _NO_DEADLINE_S else max(0.0, self._deadline - time.time())

    def code(self) -> grpc.StatusCode | None:
        """Return the status that the call was aborted with, None before."""
        return self._code

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set the metadata that is sent with the status."""
        self._trailing = metadata

    async def read(self) -> bytes | None:
        """Return the client's next message; None where it sends no more, or has gone."""
        operation = cygrpc.ReceiveMessageOperation(0)
        await self._begin((operation,), self._loop.create_future())
        message: bytes | None = operation.message()
        return message

    async def write(self, message: Any) -> None:
        """Send a message, and wait until gRPC's core takes another one.

        Raises:
            CallBroken: it was not sent.
        """
        operation = cygrpc.SendMessageOperation(self._serialize(message), 0)
        self._is_sending = True
        sent = self._loop.create_future()
        if not await self._begin((*self._beginning(), operation), sent, self._note_sent):
            raise CallBroken

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """End the call with a status.

        Args:
            code: code of the status.
            details: text of the status.
            trailing_metadata: replaces what was set before, unless it is empty.

        Raises:
            Aborted: always.
        """
        self._code, self._details = code, details
        if trailing_metadata:
            self._trailing = trailing_metadata
        raise Aborted

    async def _run(self, handler: Handler) -> None:
        """Run the handler, send what it returns or the status of its error, and wait until that has gone."""
        message, code, details = None, _OK, ""
        try:
            message = await handler(self)
        except Aborted:
            code, details = self._code.value[0] if self._code else _UNKNOWN, self._details
        except asyncio.CancelledError:
            code = _CANCELLED
            if self._is_closed:
                raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # libraries in Rust raise others than Exception
            code, details = _UNKNOWN, "unexpected error in the handler"
            context = {"message": "Exception in the handler of a call", "exception": error}
            self._loop.call_exception_handler(context)
        finally:
            try:
                if not self._is_closed:
                    await self._finish(message, code, details)
            finally:
                self._task = None  # else an exception of the task would keep the call, and that the task

    def _finish(self, message: bytes | None, code: int, details: str) -> "asyncio.Future[bool]":
        """Send the last message, if there is one, with the status, after a message that is being sent.

        They are sent also where the task no longer waits for the future that this returns.
        """
        operations = list(self._beginning())
        if message is not None:
            operations.append(cygrpc.SendMessageOperation(message, 0))
        text = details.encode("utf-8", "backslashreplace")
        operations.append(cygrpc.SendStatusFromServerOperation(self._trailing, code, text, 0))
        ended: asyncio.Future[bool] = self._loop.create_future()
        if self._is_sending:
            self._last = operations, ended
            return ended
        return self._begin(operations, ended)

    def _note_sent(self) -> None:
        """Note that a message has been sent, and send the status that waits for that."""
        self._is_sending = False
        if self._last is not None:
            (operations, ended), self._last = self._last, None
            self._begin(operations, ended)

    def _beginning(self) -> tuple[Any, ...]:
        """Return the operations that come before the first message or status."""
        if self._has_begun:
            return ()
        self._has_begun = True
        return (cygrpc.SendInitialMetadataOperation(None, 0),)

    def _begin(
        self, operations: Sequence[Any], done: "asyncio.Future[bool]", then: Callable[[], None] | None = None
    ) -> "asyncio.Future[bool]":
        """Begin a batch; the future tells whether it has succeeded, and a function is called after it."""

        def take(event: Any) -> None:
            _settle(done, event.success)
            if then is not None:
                then()

        if self._call.start_server_batch(operations, take) != cygrpc.CallError.ok:
            _settle(done, False)
            if then is not None:
                then()
        return done

    def _take_close(self, event: Any) -> None:
        """End the task of a call that is over while its handler runs, or while its answer is sent."""
        if event.batch_operations[0].cancelled():
            self._close()

    def _close(self) -> None:
        self._is_closed = True
        task, self._task = self._task, None  # one that has not begun would keep the call, and that the task
        if task is not None:
            task.cancel()


def _settle(done: "asyncio.Future[bool]", has_succeeded: bool) -> None:
    """Give a future its result, unless whoever waited for it was cancelled."""
    if not done.done():
        done.set_result(has_succeeded)
