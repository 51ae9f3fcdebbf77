"""The limit for small calls: a grpcio server that answers each message with one made beforehand and does
nothing else. It parses and serializes messages only where its first argument names their kind.

python -m benchmarks.baselines.echo_server asyncio 200
python -m benchmarks.baselines.echo_server forecast 200
python -m benchmarks.baselines.echo_server threads-4 200
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvloop
from grpc import aio

from benchmarks.baselines.listening import announce
from seqserve.inference import grpc_service_pb2 as oip
from seqserve.v1 import forecasting_pb2 as pb

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


def _forecast(_: int) -> pb.ForecastResponse:
    """Return a forecast of 5 days, each with 3 quantiles, as the shipped model makes it by default."""
    quantiles = [pb.Quantile(level=level, value=100.5) for level in (0.1, 0.5, 0.9)]
    steps = [pb.ForecastStep(value=100.5, quantiles=quantiles)] * 5
    return pb.ForecastResponse(forecasts=[pb.Forecast(steps=steps, last_value=100.5)])


def _inference(num_bytes: int) -> oip.ModelInferResponse:
    """Return an answer of the Open Inference Protocol with raw contents of about so many bytes."""
    tensors = [
        oip.ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=[1, 5])
        for name in ("value", "quantiles")
    ]
    raw = bytes(max(0, num_bytes - 60) // 2)
    return oip.ModelInferResponse(
        model_name="stock", model_version="1", outputs=tensors, raw_output_contents=[raw, raw]
    )


# Fronts that parse: the kind of the request, and what makes the answer.
PARSING: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "forecast": (pb.ForecastRequest, _forecast),
    "infer": (oip.ModelInferRequest, _inference),
}


async def serve_parsing(front: str, answer_bytes: int) -> None:
    """One thread, one event loop, unary calls alone; every message is parsed, every answer serialized."""
    kind, make = PARSING[front]
    answer = make(answer_bytes)

    async def unary(_: Any, __: Any) -> Any:
        return answer

    handler: Any = grpc.unary_unary_rpc_method_handler(
        unary, request_deserializer=kind.FromString, response_serializer=type(answer).SerializeToString
    )
    await _serve(grpc.method_handlers_generic_handler(SERVICE, {"Unary": handler}))


async def serve_asyncio(answer: bytes) -> None:
    """One thread, one event loop."""

    async def unary(_: bytes, __: Any) -> bytes:
        return answer

    async def stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield answer

    await _serve(_handlers(unary, stream))


async def _serve(handlers: grpc.GenericRpcHandler) -> None:
    server = aio.server()
    server.add_generic_rpc_handlers((handlers,))
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
        front: "asyncio", "threads-<number>", or one of `PARSING`.
        answer_bytes: of an answer.
    """
    answer = bytes(answer_bytes)
    if front in PARSING:
        uvloop.run(serve_parsing(front, answer_bytes))
    elif front == "asyncio":
        uvloop.run(serve_asyncio(answer))
    else:
        serve_threads(int(front.removeprefix("threads-")), answer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
