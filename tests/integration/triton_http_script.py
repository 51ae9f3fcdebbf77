"""Asks a server over HTTP with tritonclient, in an environment of its own, and prints the answers as JSON.

Usage: python triton_http_script.py HOST:PORT < questions, as those of `triton_script`.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype


def inputs_of(tensors: dict[str, Any], is_binary: bool) -> list[Any]:
    found = []
    for name, given in tensors.items():
        array = (
            np.array(given, np.object_)
            if isinstance(given, list)
            else np.array(given["values"], given["type"])
        )
        tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, binary_data=is_binary)
        found.append(tensor)
    return found


def ask(client: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of one answer, or its error."""
    is_binary = question.get("binary", True)
    outputs = question.get("outputs")
    try:
        result = client.infer(
            question["model"],
            inputs_of(question["tensors"], is_binary),
            outputs=None
            if outputs is None
            else [triton.InferRequestedOutput(name, binary_data=is_binary) for name in outputs],
            request_id=question.get("id", ""),
            parameters=question.get("parameters"),
            request_compression_algorithm=question.get("compression"),
            **question.get("options", {}),
        )
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}
    found = {}
    for output in result.get_response()["outputs"]:
        values = result.as_numpy(output["name"]).tolist()
        texts = [one.decode() if isinstance(one, bytes) else one for one in values]
        found[output["name"]] = texts
    return {"id": result.get_response().get("id"), "outputs": found}


def main() -> None:
    asked = json.load(sys.stdin)
    client = triton.InferenceServerClient(sys.argv[1])
    about = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models_ready": {name: client.is_model_ready(name) for name in ("moods", "nobody")},
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("prices"),
        "config": client.get_model_config("letters"),
    }
    answers = [ask(client, question) for question in asked]
    client.close()
    print(json.dumps({"about": about, "answers": answers}))


if __name__ == "__main__":
    main()
