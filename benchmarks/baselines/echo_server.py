"""The limit for small calls: a grpcio server that answers each message with bytes made beforehand and does
nothing else, not even parse it.

python -m benchmarks.baselines.echo_server asyncio 200
python -m benchmarks.baselines.echo_server threads-4 200
"""

import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvloop
from grpc import aio

from benchmarks.baselines.listening import announce

SERVICE = "bench.Echo"
UNARY, STREAM = f"/{SERVICE}/Unary", f"/{SERVICE}/Stream"
_ADDRESS = "127.0.0.1:0"


def _handlers(unary: Any, stream: Any) -> grpc.GenericRpcHandler:
    """Handlers without serializers: bytes in, bytes out."""
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


async def serve_asyncio(answer: bytes) -> None:
    """One thread, one event loop."""

    async def unary(_: bytes, __: Any) -> bytes:
        return answer

    async def stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield answer

    server = aio.server()
    server.add_generic_rpc_handlers((_handlers(unary, stream),))
    port = server.add_insecure_port(_ADDRESS)
    await server.start()
    announce(port)
    await server.wait_for_termination()


def serve_threads(threads: int, answer: bytes) -> None:
    """A thread a call."""

    def unary(_: bytes, __: Any) -> bytes:
        return answer

    def stream(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for _request in requests:
            yield answer

    server = grpc.server(ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers((_handlers(unary, stream),))
    port = server.add_insecure_port(_ADDRESS)
    server.start()
    announce(port)
    server.wait_for_termination()


def main(front: str, answer_bytes: int) -> None:
    """Serve until ended.

    Args:
        front: "asyncio" or "threads-<number>".
        answer_bytes: of an answer.
    """
    answer = bytes(answer_bytes)
    if front == "asyncio":
        uvloop.run(serve_asyncio(answer))
    else:
        serve_threads(int(front.removeprefix("threads-")), answer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
