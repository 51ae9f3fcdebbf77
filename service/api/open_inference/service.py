"""Servicer of inference.GRPCInferenceService, the Open Inference Protocol."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final
from weakref import WeakKeyDictionary

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer
from service.api.bidi import Write, serve_stream
from service.api.caller import caller_of
from service.api.errors import code_of, text_of
from service.api.open_inference.interfaces.choice import interface_of, properties_of
from service.api.open_inference.interfaces.interface import Interface, Outcome, StatefulInterface
from service.api.open_inference.parameters import Parameters, set_value
from service.api.open_inference.protocol_parameters import (
    PROTOCOL_PARAMETERS,
    apply_protocol_parameters,
    apply_timeout,
)
from service.api.open_inference.sequence_parameters import SequenceMark, mark_of
from service.api.open_inference.sequence_steps import SequenceSteps, Step
from service.api.open_inference.sequence_store import SequenceKey
from service.api.open_inference.tensors import Datatype, Tensor, TensorSpec, add, chosen, read
from service.api.versions import find_any
from service.contract import spec
from service.engine.request import Caller
from service.errors import InvalidArgument, ServiceError, shown
from service.models.loading import Served
from service.models.table import VersionTable
from service.tasks.limits import check_id

PLATFORM: Final = "onnxruntime_onnx"
_BACKEND: Final = "onnxruntime"
_EXTENSIONS: Final = ("parameters", "model_configuration", "sequence")
_DATA_TYPES: Final[dict[Datatype, "pb.DataType.ValueType"]] = {
    "BYTES": pb.TYPE_STRING,
    "FP32": pb.TYPE_FP32,
    "INT32": pb.TYPE_INT32,
    "INT64": pb.TYPE_INT64,
}
_FINAL: Final = "triton_final_response"


class OpenInferenceApi(GRPCInferenceServiceServicer):
    """Serves every rpc of the protocol, and Triton's ModelStreamInfer and ModelConfig.

    Args:
        table: versions by name and number.
        max_in_flight: maximum of requests of one stream that are read and not yet fully answered.
        is_ready: returns whether the server takes requests.
        is_stopping: returns whether the server is draining.
        sequences: gives requests of sequences their turn and state.
        sequence_idle_s: time after which an idle sequence is forgotten.
    """

    def __init__(
        self,
        table: VersionTable,
        max_in_flight: int,
        is_ready: Callable[[], bool],
        is_stopping: Callable[[], bool],
        sequences: SequenceSteps,
        sequence_idle_s: float,
    ) -> None:
        self._table = table
        self._max_in_flight = max_in_flight
        self._is_ready = is_ready
        self._is_stopping = is_stopping
        self._sequences = sequences
        self._sequence_idle_us = round(sequence_idle_s * 1e6)
        self._version = version("seqserve")
        self._interfaces: WeakKeyDictionary[Served, Interface] = WeakKeyDictionary()

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        """Return that the server is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """Return whether the server is ready, as gRPC health does."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """Return whether the model, or the given version of it, can answer."""
        number = _number("version", request.version)
        serves = any(
            one.can_answer and number in (0, one.version) for one in self._table.serving(request.name)
        )
        return pb.ModelReadyResponse(ready=serves and not self._is_stopping())

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: Any
    ) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return pb.ServerMetadataResponse(name="seqserve", version=self._version, extensions=_EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """Return the tensors of a version, and the numbers of all versions that serve."""
        with self._described(request.name, request.version) as (served, interface):
            return pb.ModelMetadataResponse(
                name=request.name,
                versions=[str(one.version) for one in reversed(self._table.serving(request.name))],
                platform=PLATFORM,
                inputs=map(_metadata, interface.inputs),
                outputs=map(_metadata, interface.outputs),
                properties=properties_of(interface, served.spec.task),
            )

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        """Return the tensors of a version in Triton's format."""
        config = pb.ModelConfig(name=request.name, platform=PLATFORM, backend=_BACKEND)
        with self._described(request.name, request.version) as (_, interface):
            config.model_transaction_policy.decoupled = interface.is_decoupled
            if isinstance(interface, StatefulInterface):
                config.sequence_batching.max_sequence_idle_microseconds = self._sequence_idle_us
            for tensor in interface.inputs:
                config.input.add(
                    name=tensor.name,
                    data_type=_DATA_TYPES[tensor.datatype],
                    dims=tensor.sizes,
                    optional=tensor.name in interface.optional,
                )
            for tensor in interface.outputs:
                config.output.add(name=tensor.name, data_type=_DATA_TYPES[tensor.datatype], dims=tensor.sizes)
        return pb.ModelConfigResponse(config=config)

    def generation_inputs(self, name: str, number: str) -> Sequence[TensorSpec]:
        """Return the specs of the inputs of a model that gives text, by its name and version.

        Raises:
            InvalidArgument: the model gives something else.
            NotFound, NotReady, NotServed: no version of that name and number serves.
        """
        with self._described(name, number) as (_, interface):
            if not interface.is_decoupled:
                raise InvalidArgument(
                    "model", f"expected one of the task text-generation, found {shown(name)}; use infer"
                )
            return interface.inputs

    @contextmanager
    def _described(self, name: str, number: str) -> Iterator[tuple[Served, Interface]]:
        _check_name("name", name)
        served = find_any(self._table, name, _number("version", number))
        with served.leases:
            yield served, self._interface_of(served)

    def _interface_of(self, served: Served) -> Interface:
        """Return the interface of a version, made once; it keeps no reference to the version."""
        interface = self._interfaces.get(served)
        if interface is None:
            interface = self._interfaces[served] = interface_of(served)
        return interface

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        """Answer a request with one response."""
        check_id(request.id)
        caller = caller_of(context)
        if (mark := mark_of(request.parameters)) is not None:
            return await self._advance(request, caller, mark)
        served = self._find(request)
        with served.leases:
            work = await self._work(request, caller, served)
            return work.response(await work.interface.infer(work.tensors, work.parameters, work.caller))

    # The generated class declares a generator; this writes the responses itself.
    async def ModelStreamInfer(self, requests: Any, context: Any) -> None:  # type: ignore[override]
        """Answer the requests of a stream concurrently, each with one or more responses."""
        caller = caller_of(context)

        async def answer(request: pb.ModelInferRequest, write: Write[pb.ModelStreamInferResponse]) -> None:
            check_id(request.id)  # an answer would carry it: the call ends
            try:
                await self._stream(request, caller, write)
            except ServiceError as error:
                refusal = pb.ModelStreamInferResponse(
                    error_message=f"{code_of(error).name}: {text_of(error)}"
                )
                refusal.infer_response.id = request.id
                set_value(refusal.infer_response.parameters[_FINAL], True)
                await write(refusal)

        await serve_stream(requests, context, self._max_in_flight, answer)

    async def _stream(
        self, request: pb.ModelInferRequest, caller: Caller, write: Write[pb.ModelStreamInferResponse]
    ) -> None:
        """Write the responses to one request of a stream; the last one is marked as final."""
        # Before anything is awaited, so that requests of one sequence take their turns in order of arrival.
        if (mark := mark_of(request.parameters)) is not None:
            await _write(write, await self._advance(request, caller, mark), is_last=True)
            return
        served = self._find(request)
        with served.leases:
            work = await self._work(request, caller, served)
            stream = work.interface.stream(work.tensors, work.parameters, work.caller)
            async with aclosing(stream) as outcomes:
                async for outcome in outcomes:
                    await _write(write, work.response(outcome), outcome.is_last)

    async def _advance(
        self, request: pb.ModelInferRequest, caller: Caller, mark: SequenceMark
    ) -> pb.ModelInferResponse:
        """Answer a request of a sequence, once those before it have been answered."""
        _check_name("model_name", request.model_name)
        number = _number("model_version", request.model_version)
        key = SequenceKey(caller.client, request.model_name, number, mark.id)
        caller = apply_timeout(request.parameters, caller)  # which counts while the request waits
        async with self._sequences.turn(key, mark) as step:
            served = find_any(self._table, request.model_name, step.version)
            with served.leases:
                work = await self._work(request, caller, served, step)
                assert isinstance(work.interface, StatefulInterface), "the step has begun"
                return work.response(
                    await step.advance(work.interface, work.tensors, work.parameters, work.caller)
                )

    def _find(self, request: pb.ModelInferRequest) -> Served:
        """Return the version that a request means, which the caller leases.

        Raises:
            InvalidArgument, NotFound, NotReady, NotServed: no such version serves.
        """
        _check_name("model_name", request.model_name)
        return find_any(self._table, request.model_name, _number("model_version", request.model_version))

    async def _work(
        self, request: pb.ModelInferRequest, caller: Caller, served: Served, step: Step | None = None
    ) -> "_Work":
        """Parse a request; the task validates the values.

        Args:
            request: what was sent.
            caller: caller of the call that it came with.
            served: version that answers, which the caller has leased.
            step: its turn in its sequence; None: it belongs to none.

        Raises:
            InvalidArgument: the request is malformed.
            SequenceUnknown, SequencesExhausted, BytesExhausted: from the step.
        """
        interface = self._interface_of(served)
        if step is not None:
            step.begin(served, interface)
        parameters = Parameters(request.parameters, (*interface.parameters, *PROTOCOL_PARAMETERS))
        # Before the tensors are read, which may take a while: a timeout counts from here.
        caller = apply_protocol_parameters(parameters, caller)
        outputs = chosen(request, interface.outputs_for(parameters))
        tensors = await read(request, interface.inputs, interface.max_sizes)
        interface.check_answer(outputs, tensors, parameters)
        return _Work(request.id, served, interface, outputs, tensors, parameters, caller)


@dataclass(frozen=True, slots=True)
class _Work:
    """Parsed request.

    Attributes:
        id: id of the request.
        served: version that answers.
        interface: interface of that version.
        outputs: specs of the requested outputs.
        tensors: inputs by name.
        parameters: parameters of the request.
        caller: caller of the request, with the request's own deadline.
    """

    id: str
    served: Served
    interface: Interface
    outputs: Sequence[TensorSpec]
    tensors: dict[str, Tensor]
    parameters: Parameters
    caller: Caller

    def response(self, outcome: Outcome) -> pb.ModelInferResponse:
        """Convert an outcome to a message."""
        model = self.served.spec
        response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=self.id)
        for tensor in self.outputs:
            add(response, tensor, outcome.tensors[tensor.name])
        for name, value in outcome.parameters.items():
            set_value(response.parameters[name], value)
        return response


async def _write(
    write: Write[pb.ModelStreamInferResponse], response: pb.ModelInferResponse, is_last: bool
) -> None:
    """Write one response of a stream."""
    message = pb.ModelStreamInferResponse(infer_response=response)
    set_value(message.infer_response.parameters[_FINAL], is_last)
    await write(message)


def _metadata(tensor: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.sizes
    )


def _check_name(field: str, name: str) -> None:
    if not name:
        raise InvalidArgument(field, "expected the name of a model, found none")


def _number(field: str, text: str) -> int:
    """Return the number of a version; 0 for an empty text.

    Raises:
        InvalidArgument: the text is not a version's number.
    """
    if not text:
        return 0
    if not (
        len(text) <= 10
        and text.isascii()
        and text.isdecimal()
        and not text.startswith("0")
        and int(text) <= spec.MAX_VERSION
    ):
        raise InvalidArgument(
            field,
            f"expected a number of 1..{spec.MAX_VERSION}, or nothing for the newest, found {shown(text)}",
        )
    return int(text)
