"""What tests of models for sequences share: data, requests, and answers as arrays."""

from typing import Any

import numpy as np

from seqserve.inference import grpc_service_pb2 as pb
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from service.tasks.sequences import SequenceInput, SequenceOutput, SequencesTask
from tests.integration.tensors import infer_request
from tests.service.api.conftest import Running

RANDOM = np.random.default_rng(3)
AXES = RANDOM.uniform(0.5, 2.0, (3, 6, 3)).astype(np.float32)
LENGTHS = np.array([2, 6, 1], np.int32)
TEXTS = ["abc", "h", "gé a\nb"]
INITIAL = {
    name: RANDOM.normal(0, 1, (2, size)).astype(np.float32) for name, size in (("image", 5), ("speaker", 3))
}


def stub(generic: Running) -> Any:
    return GRPCInferenceServiceStub(generic.channel)


async def infer(generic: Running, *arguments: Any, **fields: Any) -> pb.ModelInferResponse:
    response: pb.ModelInferResponse = await stub(generic).ModelInfer(infer_request(*arguments, **fields))
    return response


def array(response: pb.ModelInferResponse, name: str) -> np.ndarray[Any, Any]:
    """An output as tritonclient reads it: BYTES are texts."""
    [index] = [index for index, one in enumerate(response.outputs) if one.name == name]
    output, raw = response.outputs[index], response.raw_output_contents[index]
    if output.datatype != "BYTES":
        kind = {"FP32": np.float32, "INT32": np.int32}[output.datatype]
        return np.frombuffer(raw, kind).reshape(output.shape)
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end].decode())
        raw = raw[end:]
    return np.array(found, object).reshape(output.shape)


def names(response: pb.ModelInferResponse) -> list[str]:
    return [one.name for one in response.outputs]


def task_of(generic: Running, model: str) -> SequencesTask:
    task = generic.repository.table.find(model, 0, "sequences").task
    assert isinstance(task, SequencesTask)
    return task


def steps_of(rows: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> list[SequenceInput]:
    return [SequenceInput(None, None, row[:length], {}) for row, length in zip(rows, lengths, strict=True)]


def texts_of(*texts: str) -> list[SequenceInput]:
    return [SequenceInput(text, None, None, {}) for text in texts]


def assert_is_padded(found: np.ndarray[Any, Any], parts: list[Any], filler: object) -> None:
    """Each row of the tensor holds one part, and the filler behind it."""
    assert len(found) == len(parts)
    for row, part in zip(found, parts, strict=True):
        np.testing.assert_array_equal(row[: len(part)], part)
        assert (row[len(part) :] == filler).all()


def all_of(outputs: list[SequenceOutput], name: str) -> list[Any]:
    return [getattr(one, name) for one in outputs]
