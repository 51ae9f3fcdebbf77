"""A way to end the wait on a completion queue from any thread.

gRPC's core completes a batch without operations at once, so a call that is over can put an event into its
queue as often as it is asked to. That costs about a microsecond; a byte in a pipe would need a thread that
waits for it.
"""

import secrets
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_METHOD = "/seqserve.internal/Wake"
_SECONDS = 10.0


class Waker:
    """Puts events into a completion queue, each with the tag None.

    Args:
        queue: completion queue; nobody else may wait on it before this has been made.

    Raises:
        RuntimeError: the process cannot listen on a socket of its own.
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
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        ask: Any = channel.unary_unary(_METHOD)
        answer = ask.future(b"", timeout=_SECONDS)
        call = _wait_for(queue, _METHOD).call
        status = cygrpc.SendStatusFromServerOperation(None, cygrpc.StatusCode.ok, b"", 0)
        call.start_server_batch((cygrpc.SendInitialMetadataOperation(None, 0), status), status)
        _wait_for(queue, status)
        answer.exception(_SECONDS)  # the status without a message is an error; it has come is what counts
    server.shutdown(queue, server)
    _wait_for(queue, server)
    server.destroy()
    return call


def _wait_for(queue: Any, tag: Any) -> Any:
    """Return the event with a tag."""
    event = queue.poll()
    while event.tag is not tag:
        event = queue.poll()
    return event
