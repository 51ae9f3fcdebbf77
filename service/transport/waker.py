"""A way to end the wait on a completion queue from any thread.

gRPC's core completes a batch without operations at once, so a call that is over can put an event into its
queue as often as it is asked to. That costs about a microsecond; a byte in a pipe would need a thread that
waits for it.
"""

import secrets
import time
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

_METHOD = "/seqserve.internal/Wake"
# Seconds for the call to be made; the process has only begun, and may have little of a processor.
_SECONDS = 10.0


class Waker:
    """Puts events into a completion queue, each with the tag None.

    Args:
        queue: completion queue; nobody else may wait on it before this has been made.

    Raises:
        RuntimeError: the process cannot listen on a socket of its own, or cannot reach itself through it.
    """

    def __init__(self, queue: Any) -> None:
        self._call = _make_call(queue)

    def wake(self) -> None:
        """Put an event into the queue, from any thread."""
        self._call.start_server_batch((), None)


def _make_call(queue: Any) -> Any:
    """Return a call of the queue that is over, made through a socket that is closed again."""
    server = cygrpc.Server((), False)
    server.register_completion_queue(queue)
    server.register_method(_METHOD)
    # Names of abstract sockets belong to the network namespace and are gone with the socket.
    address = f"unix-abstract:seqserve-{secrets.token_hex(16)}"
    if not server.add_http2_port(address.encode()):
        raise RuntimeError(f"expected a socket to listen on, found none at {address}")
    server.start()
    server.request_registered_call(queue, queue, _METHOD, _METHOD)
    try:
        return _take_call(queue, address)
    finally:
        # A server that was started, and a queue with operations, would keep the process from ending.
        server.shutdown(queue, server)
        server.cancel_all_calls()
        _wait_for(queue, server)
        server.destroy()


def _take_call(queue: Any, address: str) -> Any:
    """Return a call that is over, of the server that listens on the address."""
    until = time.time() + _SECONDS
    channel = cygrpc.Channel(address.encode(), (("grpc.enable_http_proxy", 0),), None)
    operations = (
        cygrpc.SendInitialMetadataOperation(None, 0),
        cygrpc.SendCloseFromClientOperation(0),
        cygrpc.ReceiveStatusOnClientOperation(0),
    )
    # grpc's own stubs would start a thread, and wait for ever where none can be started.
    asked = channel.segregated_call(
        cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
        _METHOD.encode(),
        None,
        until,
        None,
        None,
        ((operations, None),),
        None,
        None,
    )
    try:
        event = _wait_for(queue, _METHOD, until)
        if event is None:
            raise RuntimeError(f"expected a call through {address} within {_SECONDS:g} s, found none")
        status = cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", 0)
        event.call.start_server_batch((cygrpc.SendInitialMetadataOperation(None, 0), status), status)
        _wait_for(queue, status)
    finally:
        channel.close(cygrpc.StatusCode.cancelled, "the waker has been made")
        asked.next_event()
    return event.call


def _wait_for(queue: Any, tag: Any, until: float | None = None) -> Any:
    """Return the event with a tag, None if it has not come until a time of the day."""
    event = queue.poll(until)
    while event.tag is not tag:
        if event.completion_type == cygrpc.CompletionType.queue_timeout:
            return None
        event = queue.poll(until)
    return event
