"""Messages of KServe's own form of the Open Inference Protocol (its grpc_predict_v2.proto), made at run time.

They live in a descriptor pool of their own, since their names are those of our stubs. A parameter has three
types of value there: what a server sends in other fields does not arrive.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc import aio

_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
_TYPES: Final = descriptor_pb2.FieldDescriptorProto
_CHOICE: Final = "parameter_choice"

# The subset that inference needs. Nested messages stand beside the others, which is the same on the wire.
_PROTO: Final = """
message InferParameter {
  bool bool_param = 1; int64 int64_param = 2; string string_param = 3;
}
message InferTensorContents {
  repeated int32 int_contents = 2; repeated int64 int64_contents = 3;
  repeated float fp32_contents = 6; repeated bytes bytes_contents = 8;
}
message InferInputTensor {
  string name = 1; string datatype = 2; repeated int64 shape = 3; map<string, InferParameter> parameters = 4;
  InferTensorContents contents = 5;
}
message InferRequestedOutputTensor {
  string name = 1; map<string, InferParameter> parameters = 2;
}
message ModelInferRequest {
  string model_name = 1; string model_version = 2; string id = 3; map<string, InferParameter> parameters = 4;
  repeated InferInputTensor inputs = 5; repeated InferRequestedOutputTensor outputs = 6;
  repeated bytes raw_input_contents = 7;
}
message InferOutputTensor {
  string name = 1; string datatype = 2; repeated int64 shape = 3; map<string, InferParameter> parameters = 4;
  InferTensorContents contents = 5;
}
message ModelInferResponse {
  string model_name = 1; string model_version = 2; string id = 3; map<string, InferParameter> parameters = 4;
  repeated InferOutputTensor outputs = 5; repeated bytes raw_output_contents = 6;
}
"""


def _file() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of `_PROTO`."""
    file = descriptor_pb2.FileDescriptorProto(name="kserve.proto", package="inference", syntax="proto3")
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", _PROTO, re.DOTALL):
        message = file.message_type.add(name=name)
        for label, kind, field, number in re.findall(r"(repeated )?(map<[^>]+>|\w+) (\w+) = (\d+);", body):
            if kind.startswith("map"):
                entry = message.nested_type.add(name=f"{field.title()}Entry")
                entry.options.map_entry = True
                _add_field(entry, "key", 1, "string")
                _add_field(entry, "value", 2, "InferParameter")
                _add_field(message, field, int(number), f"{name}.{entry.name}", is_repeated=True)
            else:
                _add_field(message, field, int(number), kind, is_repeated=bool(label))
        if name == "InferParameter":
            message.oneof_decl.add(name=_CHOICE)
            for one in message.field:
                one.oneof_index = 0
    return file


def _add_field(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str, *, is_repeated: bool = False
) -> None:
    label = _TYPES.LABEL_REPEATED if is_repeated else _TYPES.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label)
    if kind[0].isupper():
        field.type, field.type_name = _TYPES.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = _TYPES.Type.Value(f"TYPE_{kind.upper()}")


def _messages() -> dict[str, Any]:
    """Return the classes of the messages by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return message_factory.GetMessageClassesForFiles(["kserve.proto"], pool)


_MESSAGES: Final = _messages()
Request: Final = _MESSAGES["inference.ModelInferRequest"]
Response: Final = _MESSAGES["inference.ModelInferResponse"]


def infer_request(model: str, raw: Mapping[str, tuple[str, list[int], bytes]], **parameters: Any) -> Any:
    """Return a request as KServe's client makes one of arrays, with the size of each in a parameter.

    Args:
        model: name of the model.
        raw: datatype, shape and raw contents of each input.
        parameters: parameters of the request: truth values, integers and text.
    """
    request = Request(model_name=model)
    for name, (datatype, shape, contents) in raw.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        tensor.parameters["binary_data_size"].int64_param = len(contents)
        request.raw_input_contents.append(contents)
    fields = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], fields[type(value)], value)
    return request


async def infer(channel: aio.Channel, request: Any) -> Any:
    """Return the answer to a request, as KServe's client reads it."""
    call: Any = channel.unary_unary(_INFER, Request.SerializeToString, Response.FromString)
    return await call(request)


def parameters_of(response: Any) -> dict[str, Any]:
    """Return the parameters of an answer; None for one that arrives empty."""
    found: dict[str, Any] = {}
    for name, value in response.parameters.items():
        choice = value.WhichOneof(_CHOICE)
        found[name] = None if choice is None else getattr(value, choice)
    return found
