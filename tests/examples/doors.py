"""Questions to the real server: typed services, the Open Inference Protocol and the command."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from grpc import aio
from numpy.typing import NDArray
from typer.testing import CliRunner

from seqserve.cli.app import app
from seqserve.inference import grpc_service_pb2 as inference
from seqserve.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from seqserve.v1 import sequences_pb2 as pb
from seqserve.v1 import text_generation_pb2 as generation
from seqserve.v1.sequences_pb2_grpc import SequencesStub
from seqserve.v1.text_generation_pb2_grpc import TextGenerationStub
from tests.examples.made import Answer
from tests.integration.tensors import infer_request
from training.export.sequences.compare import Example

# Examples that write texts.
WRITERS = ("captions", "dates")


def sequence_input(question: Example, rows: slice = slice(None)) -> pb.SequenceInput:
    """Return a question as a caller sends it: its text, or its values from row to row."""
    message = pb.SequenceInput()
    if question.text is not None:
        message.text = question.text
    else:
        values = _values(question)[rows]
        message.steps.features = values.shape[1]
        message.steps.values.extend(values.ravel().tolist())
    return message


def answer(output: pb.SequenceOutput) -> Answer:
    values = np.array(output.values, np.float32).reshape(output.steps, output.width)
    return Answer(labels=tuple(output.labels), values=values)


async def typed(
    channel: aio.Channel, name: str, questions: Sequence[Example], *, raw: bool = False
) -> list[Answer]:
    """Ask the service of the example's task for all answers at once: Sequences.Infer, or Generate.

    With `raw` the values are the network's own outputs, or the log-probabilities of a text.
    """
    if name in WRITERS:
        return await written(channel, name, questions)
    stub: Any = SequencesStub(channel)
    request = pb.InferRequest(model=name, inputs=[sequence_input(one) for one in questions], raw=raw)
    response = await stub.Infer(request)
    return [answer(one) for one in response.outputs]


async def written(channel: aio.Channel, name: str, questions: Sequence[Example]) -> list[Answer]:
    """Ask TextGeneration.Generate for the most probable text of each image or source, all at once."""
    stub: Any = TextGenerationStub(channel)

    async def one(question: Example) -> Answer:
        request = generation.GenerateRequest(model=name, temperature=0, logprobs=True)
        if question.source_text is not None:
            request.source.text = question.source_text
        for input_name, row in question.initial.items():
            request.initial[input_name].values.extend(row.tolist())
        messages = [message async for message in stub.Generate(request)]
        assert messages[-1].finish_reason == generation.FINISH_REASON_END_TOKEN
        logprobs = [value for message in messages for value in message.logprobs]
        return Answer(text="".join(message.text for message in messages), values=np.array([logprobs]))

    return list(await asyncio.gather(*map(one, questions)))


async def streamed(
    channel: aio.Channel, name: str, questions: Sequence[Example], steps: int
) -> list[list[pb.InferStreamResponse]]:
    """Ask Sequences.InferStream, a few steps of each question a message; the answers to each question."""
    stub: Any = SequencesStub(channel)

    async def messages() -> AsyncIterator[pb.InferStreamRequest]:
        longest = max(len(one.inputs) for one in questions)
        for start in range(0, longest, steps):
            for index, one in enumerate(questions):
                if start < len(one.inputs):
                    part = sequence_input(one, slice(start, start + steps))
                    yield pb.InferStreamRequest(id=str(index), model=name, input=part)

    found: list[list[pb.InferStreamResponse]] = [[] for _ in questions]
    async for response in stub.InferStream(messages()):
        assert not response.error.code, response.error.message
        found[int(response.id)].append(response)
    return found


async def open_inference(channel: aio.Channel, name: str, questions: Sequence[Example]) -> list[Answer]:
    """Ask ModelInfer: texts, values padded to the longest question, or one image or source a call."""
    stub: Any = GRPCInferenceServiceStub(channel)
    if name in WRITERS:
        calls = (stub.ModelInfer(_writing_request(name, one)) for one in questions)
        return [Answer(text=_arrays(found)["text"][0]) for found in await asyncio.gather(*calls)]
    lengths = [len(one.inputs) for one in questions]
    tensors: dict[str, Any] = {}
    if questions[0].text is not None:
        tensors["text"] = [one.text for one in questions]
    else:
        padded = np.zeros((len(questions), max(lengths), questions[0].inputs.shape[1]), np.float32)
        for row, one in zip(padded, questions, strict=True):
            row[: len(one.inputs)] = _values(one)
        tensors = {"input": padded, "lengths": np.array(lengths, np.int32)}
    outputs = _arrays(await stub.ModelInfer(infer_request(name, tensors)))
    rows = [_of_row(outputs, index, length) for index, length in enumerate(lengths)]
    return [Answer(labels=one.get("label", ()), values=one.get("output", np.zeros((0, 0)))) for one in rows]


def _writing_request(name: str, question: Example) -> inference.ModelInferRequest:
    tensors: dict[str, Any] = {"prompt": [""]}
    tensors |= {input_name: row.numpy()[None] for input_name, row in question.initial.items()}
    if question.source_text is not None:
        tensors["source"] = [question.source_text]
    return infer_request(name, tensors, {"temperature": 0.0})


def _of_row(outputs: Mapping[str, NDArray[Any]], index: int, length: int) -> dict[str, Any]:
    """Return what the tensors hold for one question, without what stands behind its length."""
    found: dict[str, Any] = {}
    if "label" in outputs:
        labels = outputs["label"][index]
        found["label"] = tuple(labels[:length]) if np.ndim(labels) else (labels,)
    if "output" in outputs:
        values = outputs["output"][index]
        found["output"] = values[:length] if values.ndim == 2 else values[None]
    return found


def _arrays(response: inference.ModelInferResponse) -> dict[str, NDArray[Any]]:
    found = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        kind = {"FP32": np.float32, "INT32": np.int32}.get(output.datatype)
        data: NDArray[Any] = np.array(_texts(raw)) if kind is None else np.frombuffer(raw, kind)
        found[output.name] = data.reshape(output.shape)
    return found


def _texts(raw: bytes) -> list[str]:
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end].decode())
        raw = raw[end:]
    return found


def _values(question: Example) -> NDArray[Any]:
    return question.inputs.numpy() if question.values is None else question.values


def same(one: Answer, other: Answer) -> bool:
    """Return whether two answers have the same labels, the same text, and values of the same bits."""
    has_same_bits = one.values.size > 0 and np.array_equal(one.values, other.values)
    return (one.labels, one.text) == (other.labels, other.text) and has_same_bits


def command(address: str, *arguments: str, stdin: str = "") -> list[dict[str, Any]]:
    """Run `seqserve` in this process; return the objects that it prints with --json."""
    found = CliRunner().invoke(
        app, ["--server", address, *arguments, "--json"], input=stdin, catch_exceptions=False
    )
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


def inferred(address: str, name: str, questions: Sequence[Example]) -> list[Answer]:
    """Ask `seqserve infer`: texts as arguments, or values as lines of JSON."""
    if questions[0].text is not None:
        found = command(address, "infer", name, *(one.text or "" for one in questions))
    else:
        rows = [{"id": str(index), "steps": _values(one).tolist()} for index, one in enumerate(questions)]
        lines = map(json.dumps, rows)
        found = command(address, "infer", name, "--format", "jsonl", stdin="\n".join(lines))
    return [
        Answer(labels=tuple(one.get("labels", ())), values=np.array(one.get("values", ())).astype(np.float32))
        for one in found
    ]


def captioned(address: str, question: Example, file: Path) -> Answer:
    """Ask `seqserve generate`, with the image in a file."""
    file.write_text(json.dumps({name: row.tolist() for name, row in question.initial.items()}))
    options = ("--model", "captions", "--temperature", "0", "--initial", str(file))
    found = command(address, "generate", *options, "")
    return Answer(text="".join(one["text"] for one in found))


def dated(address: str, question: Example) -> Answer:
    """Ask `seqserve generate`, with the date as the source."""
    options = ("--model", "dates", "--temperature", "0", "--source", question.source_text or "")
    return Answer(text="".join(one["text"] for one in command(address, "generate", *options)))


def labelled(address: str, name: str, questions: Sequence[Example]) -> list[dict[str, Any]]:
    """Ask `seqserve label`."""
    return command(address, "label", name, *(one.text or "" for one in questions))
