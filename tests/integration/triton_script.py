"""Everything that tests.integration.test_tritonclient wants of a server, asked by tritonclient in an
environment of its own.

Usage: python triton_script.py ADDRESS < questions. Questions and answers are JSON; numbers come back as they
were received, float32 as float.
"""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

PATIENCE_S = 20


def inputs_of(tensors: dict[str, Any]) -> list[Any]:
    """tritonclient's inputs: lists of texts are BYTES, all else carries its datatype."""
    found = []
    for name, given in tensors.items():
        array = (
            np.array(given, np.object_)
            if isinstance(given, list)
            else np.array(given["values"], given["type"])
        )
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        found.append(tensor)
    return found


def outputs_of(result: Any) -> dict[str, Any]:
    """Every output as lists, bytes as text."""
    response = result.get_response()
    found = {}
    for output in response.outputs:
        array = result.as_numpy(output.name)
        found[output.name] = [one.decode() for one in array] if output.datatype == "BYTES" else array.tolist()
    return found


def parameters_of(result: Any) -> dict[str, Any]:
    """The parameters of an answer."""
    parameters = result.get_response().parameters
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}


def ask(question: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call to infer."""
    wanted = question.get("outputs")
    classes = question.get("classes", 0)
    return {
        "model_name": question["model"],
        "inputs": inputs_of(question["tensors"]),
        "outputs": None
        if wanted is None
        else [triton.InferRequestedOutput(name, classes) for name in wanted],
        "request_id": question.get("id", ""),
        "parameters": question.get("parameters"),
        **question.get("options", {}),
    }


def sync_answers(address: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One call of infer a question."""
    answers = []
    with triton.InferenceServerClient(address) as client:
        for question in questions:
            try:
                result = client.infer(**ask(question), client_timeout=PATIENCE_S)
                answers.append({"id": result.get_response().id, "outputs": outputs_of(result)})
            except InferenceServerException as error:
                answers.append({"status": error.status(), "message": error.message()})
    return answers


async def aio_answers(address: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All calls at once."""
    async with triton_aio.InferenceServerClient(address) as client:
        results = await asyncio.gather(
            *(client.infer(**ask(question), client_timeout=PATIENCE_S) for question in questions)
        )
    return [{"id": result.get_response().id, "outputs": outputs_of(result)} for result in results]


def streamed(address: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every message of one stream of all questions, in order of arrival."""
    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    found, open_ones = [], len(questions)
    with triton.InferenceServerClient(address) as client:
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        for question in questions:
            client.async_stream_infer(**ask(question), enable_empty_final_response=True)
        while open_ones:
            result, error = arrived.get(timeout=PATIENCE_S)
            if error is not None:
                found.append({"message": error.message()})
                open_ones -= 1
                continue
            parameters = parameters_of(result)
            found.append(
                {"id": result.get_response().id, "outputs": outputs_of(result), "parameters": parameters}
            )
            open_ones -= parameters["triton_final_response"]
        client.stop_stream()
    return found


async def aio_streamed(address: str, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with tritonclient's asyncio client."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for question in questions:
            yield ask(question)

    found = []
    async with triton_aio.InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests(), stream_timeout=PATIENCE_S):
            if error is None:
                found.append(
                    {
                        "id": result.get_response().id,
                        "outputs": outputs_of(result),
                        "parameters": parameters_of(result),
                    }
                )
            else:
                found.append({"message": error.message()})
    return found


def about(address: str, models: list[str]) -> dict[str, Any]:
    """Liveness, readiness and metadata."""
    with triton.InferenceServerClient(address) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "server": client.get_server_metadata(as_json=True),
            "models_ready": {name: client.is_model_ready(name) for name in [*models, "nobody"]},
            "models": {name: client.get_model_metadata(name, as_json=True) for name in models},
            "configs": {name: client.get_model_config(name, as_json=True)["config"] for name in models},
        }


def main() -> None:
    """Answer each part of the questions."""
    [address] = sys.argv[1:]
    asked = json.load(sys.stdin)
    answers = {
        "about": about(address, asked["about"]),
        "sync": sync_answers(address, asked["sync"]),
        "aio": asyncio.run(aio_answers(address, asked["aio"])),
        "stream": streamed(address, asked["stream"]),
        "aio_stream": asyncio.run(aio_streamed(address, asked["stream"])),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
