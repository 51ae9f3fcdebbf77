"""Asks a server over HTTP with KServe's own client, in an environment of its own; prints the answers as JSON.

Usage: python kserve_script.py http://HOST:PORT < questions: model, tensors and whether they are binary.
"""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

DATATYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def request_of(question: dict[str, Any]) -> Any:
    inputs = []
    for name, given in question["tensors"].items():
        is_text = isinstance(given, list)
        array = np.array(given, np.object_) if is_text else np.array(given["values"], given["type"])
        datatype = "BYTES" if is_text else DATATYPES[given["type"]]
        tensor = InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=question["binary"])
        inputs.append(tensor)
    return InferRequest(
        question["model"], inputs, request_id="mine", parameters=question.get("parameters", {})
    )


async def ask(client: Any, url: str, question: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of one answer, or its error."""
    try:
        found = await client.infer(url, request_of(question), model_name=question["model"])
    except Exception as error:
        return {"message": str(error)}
    outputs = {}
    for output in found.outputs:
        values = output.as_numpy().tolist()
        outputs[output.name] = [one.decode() if isinstance(one, bytes) else one for one in values]
    return {"id": found.id, "outputs": outputs}


async def main() -> None:
    url, asked = sys.argv[1], json.load(sys.stdin)
    client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0, timeout=20))
    about = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "models_ready": {name: await client.is_model_ready(url, name) for name in ("moods", "nobody")},
    }
    answers = [await ask(client, url, question) for question in asked]
    await client.close()
    print(json.dumps({"about": about, "answers": answers}))


asyncio.run(main())
