"""Routes of the Open Inference Protocol's REST form, and of Triton's `generate` and `generate_stream`.

Each request becomes one message of a method of `inference.GRPCInferenceService`, and its answer JSON.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from seqserve.inference import grpc_service_pb2 as pb
from service.api.open_inference.tensors import TensorSpec
from service.api.rest import generate_messages, infer_messages
from service.api.rest.exchange import Exchange
from service.api.rest.handed_call import CallLoop
from service.api.rest.infer_messages import HEADER_LENGTH, BinaryOutputs
from service.api.rest.json_values import JsonBodies
from service.api.rest.streams import EventStream
from service.errors import BodyTooLarge

_EXTENSIONS: Final = ("binary_tensor_data", "generate")
_SERVICE: Final = "/inference.GRPCInferenceService/"
_MODEL: Final = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")

Answer = Callable[[Exchange], Awaitable[None]]
Inputs = Callable[[str, str], Sequence[TensorSpec]]


class RestApi:
    """Answers requests in the event loop of the HTTP port.

    Args:
        calls: runs calls in the event loop of all calls.
        inputs_of: returns the specs of the inputs of a model that gives text, by its name and version; called
            in the event loop of the calls.
        is_alive: returns, in any thread, whether the process works.
        is_ready: returns, in any thread, whether the server takes requests.
        max_body_bytes: maximum size of a body.
        max_message_bytes: maximum size of the message that is made of a body.
    """

    def __init__(
        self,
        calls: CallLoop,
        inputs_of: Inputs,
        is_alive: Callable[[], bool],
        is_ready: Callable[[], bool],
        max_body_bytes: int,
        max_message_bytes: int,
    ) -> None:
        self._calls = calls
        self._inputs_of = inputs_of
        self._checks = {"live": is_alive, "ready": is_ready}
        self._max_body_bytes = max_body_bytes
        self._max_message_bytes = max_message_bytes
        self._json = JsonBodies()

    def routes(self) -> list[Route]:
        """Return the routes."""
        found = [
            self._route("/v2", "GET", self._server),
            *(self._route(f"/v2/health/{name}", "GET", partial(self._health, name)) for name in self._checks),
        ]
        for path in _MODEL:
            found += [
                self._route(path, "GET", self._model),
                self._route(f"{path}/ready", "GET", self._model_ready),
                self._route(f"{path}/config", "GET", self._config),
                self._route(f"{path}/infer", "POST", self._infer),
                self._route(f"{path}/generate", "POST", self._generate),
                self._route(f"{path}/generate_stream", "POST", self._generate_stream),
            ]
        return found

    def _route(self, path: str, method: str, answer: Answer) -> Route:
        return Route(path, _Endpoint(method, answer, self._max_body_bytes))

    async def _health(self, name: str, exchange: Exchange) -> None:
        is_good = self._checks[name]()
        await exchange.send_json({name: is_good}, 200 if is_good else 503)

    async def _server(self, exchange: Exchange) -> None:
        request = pb.ServerMetadataRequest()
        await self._describe(exchange, "ServerMetadata", request, pb.ServerMetadataResponse, _with_extensions)

    async def _model(self, exchange: Exchange) -> None:
        request = pb.ModelMetadataRequest(name=exchange.part("model"), version=exchange.part("version"))
        await self._describe(exchange, "ModelMetadata", request, pb.ModelMetadataResponse, _with_sizes)

    async def _config(self, exchange: Exchange) -> None:
        request = pb.ModelConfigRequest(name=exchange.part("model"), version=exchange.part("version"))
        await self._describe(exchange, "ModelConfig", request, pb.ModelConfigResponse, _config_alone)

    async def _model_ready(self, exchange: Exchange) -> None:
        model = exchange.part("model")
        request = pb.ModelReadyRequest(name=model, version=exchange.part("version"))

        async def write(data: bytes) -> None:
            is_ready = pb.ModelReadyResponse.FromString(data).ready
            await exchange.send_json({"name": model, "ready": is_ready}, 200 if is_ready else 503)

        await self._answer(exchange, "ModelReady", partial(_only, request), write)

    async def _describe(
        self,
        exchange: Exchange,
        method: str,
        request: Message,
        kind: type[Any],
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Answer with the JSON of a method's answer."""

        async def write(data: bytes) -> None:
            await exchange.send_json(
                change(MessageToDict(kind.FromString(data), preserving_proto_field_name=True))
            )

        await self._answer(exchange, method, partial(_only, request), write)

    async def _answer(self, exchange: Exchange, method: str, read: Any, write: Any) -> None:
        """Run a call with one answer, and send the status of one that is refused."""
        ending = await exchange.call(self._calls, f"{_SERVICE}{method}", read, write)
        if ending is not None and not exchange.has_begun:
            await exchange.refuse(ending)

    async def _infer(self, exchange: Exchange) -> None:
        binary = BinaryOutputs(False, {})

        async def read() -> bytes:
            nonlocal binary
            body = await exchange.body()
            length = infer_messages.header_length(exchange.headers.get(HEADER_LENGTH), body)
            found = await self._json.parse(body[:length])
            names = exchange.part("model"), exchange.part("version")
            request, binary = infer_messages.request_of(found, body[length:], *names)
            return self._bytes_of(request)

        async def write(data: bytes) -> None:
            await _send_answer(exchange, pb.ModelInferResponse.FromString(data), binary)

        await self._answer(exchange, "ModelInfer", read, write)

    async def _generate(self, exchange: Exchange) -> None:
        key = ""

        async def read() -> bytes:
            nonlocal key
            message, key = await self._generation(exchange)
            return message

        async def write(data: bytes) -> None:
            content = generate_messages.json_of(pb.ModelInferResponse.FromString(data), key)
            await exchange.send_parts(_one(content), {"Content-Type": "application/json"})

        await self._answer(exchange, "ModelInfer", read, write)

    async def _generate_stream(self, exchange: Exchange) -> None:
        events = EventStream(exchange)

        async def read() -> bytes:
            message, events.key = await self._generation(exchange)
            return message

        ending = await exchange.call(self._calls, f"{_SERVICE}ModelStreamInfer", read, events.write)
        if ending is not None:
            await events.end(ending)

    async def _generation(self, exchange: Exchange) -> tuple[bytes, str]:
        """Return the message of a request for text, and the key of the text in its answers."""
        names = exchange.part("model"), exchange.part("version")
        inputs = await self._calls.ask(partial(self._inputs_of, *names))
        found = await self._json.parse(await exchange.body())
        request = generate_messages.request_of(found, inputs, *names)
        return self._bytes_of(request), generate_messages.output_key(found)

    def _bytes_of(self, request: pb.ModelInferRequest) -> bytes:
        data = request.SerializeToString()
        if len(data) > self._max_message_bytes:
            raise BodyTooLarge(self._max_message_bytes, "SEQSERVE_MAX_MESSAGE_BYTES")
        return data


class _Endpoint:
    """ASGI application of one route.

    Args:
        method: method of HTTP that it takes; HEAD, too, where that is GET.
        answer: answers a request.
        max_body_bytes: maximum size of a body.
    """

    def __init__(self, method: str, answer: Answer, max_body_bytes: int) -> None:
        self._methods = ("GET", "HEAD") if method == "GET" else (method,)
        self._answer = answer
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._max_body_bytes)
        if scope["method"] in self._methods:
            await self._answer(exchange)
            return
        await exchange.refuse_method(self._methods)


async def _only(request: Message) -> bytes:
    return request.SerializeToString()


async def _one(content: bytes) -> Any:
    yield content


def _with_extensions(found: dict[str, Any]) -> dict[str, Any]:
    """Return the server's metadata with the extensions of the REST form."""
    return {**found, "extensions": [*found["extensions"], *_EXTENSIONS]}


def _with_sizes(found: dict[str, Any]) -> dict[str, Any]:
    """Return metadata whose sizes are numbers: JSON of protobuf has numbers of 64 bits as text."""
    for side in ("inputs", "outputs"):
        for tensor in found.get(side, ()):
            tensor["shape"] = [int(size) for size in tensor["shape"]]
    return found


def _config_alone(found: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = found["config"]
    return config


async def _send_answer(exchange: Exchange, response: pb.ModelInferResponse, binary: BinaryOutputs) -> None:
    """Send an answer as JSON, or as JSON and the binary data behind it."""
    json = infer_messages.json_of(response, binary)
    behind = infer_messages.binary_of(response, binary)
    if not behind:
        await exchange.send_parts(json, {"Content-Type": "application/json"})
        return
    header = b"".join([part async for part in json])
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(header)),
        "Content-Length": str(len(header) + sum(map(len, behind))),
    }
    await exchange.begin(headers)
    for part in (header, *behind):
        await exchange.send_part(part)
    await exchange.end()
