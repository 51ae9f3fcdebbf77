"""Text generation as a decoupled model of Triton's Python backend: continuous batching in a thread.

Runs in Triton's stub. Inputs, parameters and outputs are those of docs/open-inference.md: `prompt` BYTES [1];
`max_tokens`, `temperature`, `seed`; responses of `text` BYTES [1], several characters each.
"""

import json
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from benchmarks.models import read_model
from benchmarks.peers.slots import Job, Slots


class Streams:
    """Hands requests over to a thread that generates all of them side by side."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and start the thread."""
        parameters = json.loads(args["model_config"])["parameters"]
        model = read_model(Path(parameters["folder"]["string_value"]))
        section = model.spec.generation
        assert section is not None, "expected a model that generates text"
        assert section.text.kind == "characters", "expected a model of characters"
        self._start_token, self._prepend_start = section.start_token, section.prepend_start
        self._ids = {character: index for index, character in enumerate(section.text.vocabulary)}
        self._interval_s = float(parameters["interval_ms"]["string_value"]) / 1000
        self._slots = Slots(model, int(parameters["rows"]["string_value"]))
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="generate")
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Queue the requests: each joins at the next step with a free slot."""
        for request in requests:
            self._waiting.put(self._job_of(request))

    def finalize(self) -> None:
        """End the thread, with the texts that it generates."""
        self._waiting.put(None)
        self._thread.join()

    def _job_of(self, request: Any) -> Job:
        prompt = pb_utils.get_input_tensor_by_name(request, "prompt").as_numpy()[0].decode()
        tokens = [self._ids[character] for character in prompt]
        if self._prepend_start or not tokens:
            tokens = [self._start_token, *tokens]
        given = json.loads(request.parameters())
        sender = request.get_response_sender()

        def send(text: str, is_last: bool) -> None:
            tensor = pb_utils.Tensor("text", np.array([text.encode()], np.object_))
            flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
            sender.send(pb_utils.InferenceResponse([tensor]), flags=flags)

        return Job(
            np.array(tokens, np.int64),
            int(given["max_tokens"]),
            float(given["temperature"]),
            int(given["seed"]),
            send,
        )

    def _run(self) -> None:
        """Step while there are rows; wait for a request while there are none."""
        flushed = time.perf_counter()
        while self._take_in():
            self._slots.step()
            if (now := time.perf_counter()) - flushed >= self._interval_s:
                self._slots.flush()
                flushed = now

    def _take_in(self) -> bool:
        """Admit what waits; whether to go on."""
        while self._slots.can_admit:
            try:
                job = self._waiting.get(block=not self._slots.count)
            except queue.Empty:
                break
            if job is None:
                return False
            self._slots.admit(job)
        return True
