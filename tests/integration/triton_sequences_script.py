"""Sequences that tests.integration.test_triton_sequences wants of a server, sent by tritonclient in an
environment of its own.

Usage: python triton_sequences_script.py ADDRESS METRICS_URL < data. The data (a series of observations,
texts, rows of axes) and the answers by scenario are JSON; an answer is the forecast values, or the status and
message of the error.
"""

import asyncio
import json
import queue
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

PATIENCE_S = 20
LEAST = 7
MODEL = "prices"
Answer = dict[str, Any]


def days_of(series: list[Any], start: int, end: int) -> list[Any]:
    """tritonclient's inputs of some observations."""
    array = np.array([series[start:end]], np.float32)
    tensor = triton.InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


def steps_of(series: list[Any], name: object, end: int | None = None) -> Iterator[dict[str, Any]]:
    """The arguments of calls that send a whole series, observation by observation after the first ones."""
    end = end or len(series)
    for at in range(LEAST, end + 1):
        yield {
            "model_name": MODEL,
            "inputs": days_of(series, 0 if at == LEAST else at - 1, at),
            "sequence_id": name,
            "sequence_start": at == LEAST,
            "sequence_end": at == len(series),
        }


def answer_of(result: Any, error: InferenceServerException | None = None) -> Answer:
    """What a call has given."""
    if error is not None:
        return {"status": error.status(), "message": error.message()}
    return {"id": result.get_response().id, "values": result.as_numpy("value").tolist()}


def infer(client: Any, **arguments: Any) -> Answer:
    """One call."""
    try:
        return answer_of(client.infer(**arguments, client_timeout=PATIENCE_S))
    except InferenceServerException as error:
        return answer_of(None, error)


def unary(client: Any, series: list[Any], name: object) -> list[Answer]:
    """A whole series, and one observation more."""
    calls = list(steps_of(series, name))
    late = {"model_name": MODEL, "inputs": days_of(series, 0, 1), "sequence_id": name}
    return [infer(client, **arguments) for arguments in [*calls, late]]


async def aio_unary(address: str, series: list[Any]) -> list[Answer]:
    """A whole series with tritonclient's asyncio client."""
    async with triton_aio.InferenceServerClient(address) as client:
        return [answer_of(await client.infer(**one)) for one in steps_of(series, "aio")]


def streamed(address: str, series: list[Any]) -> list[Answer]:
    """Two series on one stream, sent ahead of their answers, and a step of none."""
    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    calls = [
        one | {"request_id": f"{one['sequence_id']} {at}"}
        for pair in zip(steps_of(series, 9), steps_of(series[::-1], "nine"), strict=True)
        for at, one in enumerate(pair)
    ]
    calls.append({"model_name": MODEL, "inputs": days_of(series, 0, 9), "sequence_id": "never"})
    with triton.InferenceServerClient(address) as client:
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        for one in calls:
            client.async_stream_infer(**one)
        found = [answer_of(*arrived.get(timeout=PATIENCE_S)) for _ in calls]
        client.stop_stream()
    return found


def metric(url: str, name: str) -> float:
    """The value of a metric without labels."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:  # noqa: S310 -- of the test's server
        lines = response.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def generic(client: Any, texts: list[str], axes: list[Any]) -> dict[str, Any]:
    """Models for sequences: labels of texts, and a class after each step of one sequence."""
    text = triton.InferInput("text", [len(texts)], "BYTES")
    text.set_data_from_numpy(np.array(texts, np.object_))
    tags = client.infer("tags", [text])
    classes = []
    for at in range(len(axes)):
        result = client.infer(
            "activity",
            days_of(axes, at, at + 1),
            sequence_id="axes",
            sequence_start=at == 0,
            sequence_end=at == len(axes) - 1,
            parameters={"raw": "true"},
        )
        classes.append([result.as_numpy("label")[0].decode(), result.as_numpy("output")[0].tolist()])
    return {
        "labels": [[one.decode() for one in row] for row in tags.as_numpy("label")],
        "spans": tags.as_numpy("spans").tolist(),
        "classes": classes,
    }


def forgotten(client: Any, url: str, series: list[Any]) -> list[Answer]:
    """A start, and a step after the server has forgotten it."""
    first, second = list(steps_of(series, "idle"))[:2]
    before = metric(url, "seqserve_sequences_forgotten_total")
    found = [infer(client, **first)]
    deadline = time.monotonic() + PATIENCE_S
    while metric(url, "seqserve_sequences_forgotten_total") == before and time.monotonic() < deadline:
        pass  # each look is a call, which the server's thread answers in its time
    return [*found, infer(client, **second)]


def crowded(address: str, series: list[Any], count: int) -> list[Answer]:
    """More starts than one caller may have open, then one more after an end."""
    with triton.InferenceServerClient(address) as client:
        starts = [next(steps_of(series, number)) for number in range(1, count + 1)]
        found = [infer(client, **one) for one in starts]
        end = {"model_name": MODEL, "inputs": days_of(series, LEAST, LEAST + 1), "sequence_id": 1}
        return [*found, infer(client, **end, sequence_end=True), infer(client, **starts[-1])]


def main() -> None:
    """Run each scenario."""
    address, url = sys.argv[1:]
    asked = json.load(sys.stdin)
    series = asked["series"]
    with triton.InferenceServerClient(address) as client:
        answers = {
            "extensions": client.get_server_metadata(as_json=True)["extensions"],
            "config": client.get_model_config(MODEL, as_json=True)["config"],
            "generic": generic(client, asked["texts"], asked["axes"]),
            "number": unary(client, series, 7),
            "text": unary(client, series, "seven"),
            "aio": asyncio.run(aio_unary(address, series)),
            "stream": streamed(address, series),
            "idle": forgotten(client, url, series),
            "crowd": crowded(address, series, 5),
        }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
