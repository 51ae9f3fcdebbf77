"""Messages of the Open Inference Protocol, the same for our server and for Triton, and what answers hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seqserve.inference import grpc_service_pb2 as oip

_LENGTH_BYTES = 4  # before each element of a tensor of BYTES


def _bytes_element(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def text_request(model: str, text: str, shape: Sequence[int]) -> bytes:
    """Return a request to classify one text.

    Args:
        model: the model's name.
        text: the text.
        shape: (1,) for our server, (1, 1) for Triton, where the first dimension is the batch's.
    """
    tensor = oip.ModelInferRequest.InferInputTensor(name="text", datatype="BYTES", shape=shape)
    return oip.ModelInferRequest(
        model_name=model, inputs=[tensor], raw_input_contents=[_bytes_element(text)]
    ).SerializeToString()


def prompt_request(model: str, prompt: str, number: int, max_tokens: int, temperature: float) -> bytes:
    """Return a request to generate text, whose id and seed is a number."""
    tensor = oip.ModelInferRequest.InferInputTensor(name="prompt", datatype="BYTES", shape=[1])
    request = oip.ModelInferRequest(
        model_name=model, id=str(number), inputs=[tensor], raw_input_contents=[_bytes_element(prompt)]
    )
    request.parameters["max_tokens"].int64_param = max_tokens
    request.parameters["seed"].int64_param = number
    request.parameters["temperature"].double_param = temperature
    return request.SerializeToString()


@dataclass(frozen=True, slots=True)
class Tensors:
    """The raw tensors of an answer.

    Attributes:
        id: of the request.
        raw: little-endian contents by tensor name.
    """

    id: str
    raw: dict[str, bytes]

    def numbers(self, name: str) -> NDArray[np.float32]:
        """Return a tensor of FP32, flat."""
        return np.frombuffer(self.raw[name], np.float32)

    def text(self, name: str) -> str:
        """Return the one element of a tensor of BYTES."""
        return self.raw[name][_LENGTH_BYTES:].decode()


def tensors_of(answer: bytes) -> Tensors:
    """Read an answer to ModelInfer."""
    return _tensors(oip.ModelInferResponse.FromString(answer))


def streamed_tensors_of(answer: bytes) -> Tensors:
    """Read a message of ModelStreamInfer; one that only ends a request has no tensors."""
    message = oip.ModelStreamInferResponse.FromString(answer)
    assert not message.error_message, f"an answer is an error: {message.error_message}"
    return _tensors(message.infer_response)


def streamed_texts(answers: Sequence[bytes]) -> dict[str, str]:
    """Return the whole text of each request of ModelStreamInfer, by its id."""
    texts: dict[str, str] = {}
    for tensors in map(streamed_tensors_of, answers):
        if "text" in tensors.raw:
            texts[tensors.id] = texts.get(tensors.id, "") + tensors.text("text")
    return texts


def _tensors(response: Any) -> Tensors:
    names = [output.name for output in response.outputs]
    return Tensors(response.id, dict(zip(names, response.raw_output_contents, strict=True)))
