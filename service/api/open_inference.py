"""inference.GRPCInferenceService: the Open Inference Protocol over the tasks that the typed services use."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer
from service.api.caller import caller_of
from service.api.errors import code_of
from service.api.exchange import Exchange
from service.api.infer import Interface, Outcome, interface_of, properties_of
from service.api.parameters import Parameters
from service.api.tensors import Datatype, Form, Tensor, add, chosen, read, shown
from service.contract import spec
from service.engine.sequence import Caller
from service.errors import InvalidArgument, ServiceError
from service.models.loading import Served
from service.models.repository import Repository

PLATFORM: Final = "onnxruntime_onnx"
_BACKEND: Final = "onnxruntime"
_EXTENSIONS: Final = ("parameters", "model_configuration")
_DATA_TYPES: Final[dict[Datatype, "pb.DataType.ValueType"]] = {
    "BYTES": pb.TYPE_STRING,
    "FP32": pb.TYPE_FP32,
    "INT32": pb.TYPE_INT32,
    "INT64": pb.TYPE_INT64,
}
_FINAL: Final = "triton_final_response"


class OpenInferenceApi(GRPCInferenceServiceServicer):
    """Every rpc of the protocol, and Triton's ModelStreamInfer and ModelConfig.

    Args:
        repository: where models are found.
        in_flight: requests of one stream read and not yet answered to the end; more wait in the caller's flow
            control.
        is_ready: whether the server takes requests.
        is_stopping: whether it takes no new ones any more.
    """

    def __init__(
        self,
        repository: Repository,
        in_flight: int,
        is_ready: Callable[[], bool],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._repository = repository
        self._in_flight = in_flight
        self._is_ready = is_ready
        self._is_stopping = is_stopping
        self._version = version("seqserve")

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        """Whoever answers is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """As health has it of the server."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """As health has it of the model, or whether the version can answer."""
        number = _number("version", request.version)
        entries = [one for one in self._repository.entries() if one.name == request.name]
        serves = any(one.can_answer and number in (0, one.version) for one in entries)
        return pb.ModelReadyResponse(ready=serves and not self._is_stopping())

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Any
    ) -> pb.ServerMetadataResponse:
        """Name and version."""
        return pb.ServerMetadataResponse(name="seqserve", version=self._version, extensions=_EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """Tensors of the version asked for, and all versions that serve."""
        served = self._find(("name", "version"), request.name, request.version)
        interface = interface_of(served)
        entries = self._repository.entries()
        versions = sorted(
            entry.version for entry in entries if entry.name == request.name and entry.served is not None
        )
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=map(str, versions),
            platform=PLATFORM,
            inputs=map(_metadata, interface.inputs),
            outputs=map(_metadata, interface.outputs),
            properties=properties_of(interface, served.spec.task),
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        """The same tensors in Triton's terms."""
        interface = interface_of(self._find(("name", "version"), request.name, request.version))
        config = pb.ModelConfig(name=request.name, platform=PLATFORM, backend=_BACKEND)
        config.model_transaction_policy.decoupled = interface.is_decoupled
        for form in interface.inputs:
            is_optional = form.name in interface.optional
            config.input.add(
                name=form.name, data_type=_DATA_TYPES[form.datatype], dims=form.sizes, optional=is_optional
            )
        for form in interface.outputs:
            config.output.add(name=form.name, data_type=_DATA_TYPES[form.datatype], dims=form.sizes)
        return pb.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        """Answer a request as a whole."""
        work = self._work(request)
        with work.served.uses:
            return work.response(
                await work.interface.infer(work.tensors, work.parameters, caller_of(context))
            )

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # it writes by itself
        """Answer request after request, side by side, each in as many messages as its task makes of it."""
        exchange: Exchange[pb.ModelInferRequest, pb.ModelStreamInferResponse] = Exchange(
            context, self._in_flight
        )
        caller = caller_of(context)
        running: set[asyncio.Task[None]] = set()

        def take(request: pb.ModelInferRequest) -> None:
            task = asyncio.create_task(self._answer(request, exchange, caller))
            running.add(task)
            task.add_done_callback(running.discard)

        try:
            await exchange.run(take)
        finally:
            for task in running:
                task.cancel()

    async def _answer(
        self,
        request: pb.ModelInferRequest,
        exchange: Exchange[pb.ModelInferRequest, pb.ModelStreamInferResponse],
        caller: Caller,
    ) -> None:
        """Answer one request of a stream; what is wrong with it is the last message of its answer."""
        try:
            exchange.answer(await self._all_but_last(request, exchange, caller))
        except ServiceError as error:
            refusal = pb.ModelStreamInferResponse(error_message=f"{code_of(error).name}: {error}")
            refusal.infer_response.id = request.id
            refusal.infer_response.parameters[_FINAL].bool_param = True
            exchange.answer(refusal)
        except Exception as bug:
            exchange.fail(bug)

    async def _all_but_last(
        self,
        request: pb.ModelInferRequest,
        exchange: Exchange[pb.ModelInferRequest, pb.ModelStreamInferResponse],
        caller: Caller,
    ) -> pb.ModelStreamInferResponse:
        """Write the messages of an answer up to the last, and return that one."""
        work = self._work(request)
        with work.served.uses:
            async with aclosing(work.interface.stream(work.tensors, work.parameters, caller)) as outcomes:
                async for outcome in outcomes:
                    response = pb.ModelStreamInferResponse(infer_response=work.response(outcome))
                    response.infer_response.parameters[_FINAL].bool_param = outcome.is_last
                    if outcome.is_last:
                        return response
                    await exchange.begin(response)
        raise AssertionError("a task says which of its answers is the last")

    def _work(self, request: pb.ModelInferRequest) -> "_Work":
        """A request that has been read and checked, but for what its task checks.

        Raises:
            InvalidArgument, NotFound, NotReady, NotServed: it cannot be worked on.
        """
        served = self._find(("model_name", "model_version"), request.model_name, request.model_version)
        interface = interface_of(served)
        outputs = chosen(request, interface.outputs)
        return _Work(
            request.id,
            served,
            interface,
            outputs,
            read(request, interface.inputs),
            Parameters(request.parameters, interface.parameters),
        )

    def _find(self, fields: tuple[str, str], name: str, number: str) -> Served:
        """The version that a request means, whatever its task."""
        if not name:
            raise InvalidArgument(fields[0], "expected the name of a model, found none")
        wanted = _number(fields[1], number)
        found = self._repository.get(name, wanted).served
        # One that does not serve is refused there with the reason.
        task: spec.Task = found.spec.task if found is not None else "text-generation"
        return self._repository.find(name, wanted, task)


@dataclass(frozen=True, slots=True)
class _Work:
    """A request on its way.

    Attributes:
        id: of the request.
        served: takes it.
        interface: of that version.
        outputs: asked for.
        tensors, parameters: given.
    """

    id: str
    served: Served
    interface: Interface
    outputs: Sequence[Form]
    tensors: dict[str, Tensor]
    parameters: Parameters

    def response(self, outcome: Outcome) -> pb.ModelInferResponse:
        """An answer as a message."""
        model = self.served.spec
        response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=self.id)
        for form in self.outputs:
            add(response, form, outcome.tensors[form.name])
        for name, value in outcome.parameters.items():
            if isinstance(value, int):
                response.parameters[name].uint64_param = value
            else:
                response.parameters[name].string_param = value
        return response


def _metadata(form: Form) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=form.name, datatype=form.datatype, shape=form.sizes)


def _number(field: str, text: str) -> int:
    """A version's number; 0 for none.

    Raises:
        InvalidArgument: it is none.
    """
    if not text:
        return 0
    if not (
        text.isascii()
        and text.isdecimal()
        and not text.startswith("0")
        and len(text) <= 10
        and int(text) <= spec.MOST_VERSION
    ):
        raise InvalidArgument(
            field,
            f"expected a number of 1..{spec.MOST_VERSION}, or nothing for the newest, found {shown(text)}",
        )
    return int(text)
