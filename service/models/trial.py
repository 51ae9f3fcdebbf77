"""Trial of a version in a child process, so that a crash, a hang or excessive memory cannot harm the server.

    python -m service.models.trial FOLDER VARIANT CHUNK BYTES

The child reads the folder, loads the graph and runs the signature and golden checks with a limited address
space. It always uses the CPU provider: CUDA reserves more address space than any useful limit.

A trial takes about half a second, mostly for Python's imports. Versions loaded at start-up are not tried,
since no requests are served yet and three models would start more than a second later.
"""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from service.contract import spec
from service.errors import ModelRefused
from service.models.checks import GOLDEN_CHUNK, check_golden, check_signature, read_tokenizer
from service.runtime import Runtime
from service.settings import Settings

_MAX_SHOWN = 300  # characters of the child's stderr in an error text
# Libraries reserve address space for each thread that they might start.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Trial:
    """Runs trials of versions, one at a time.

    Args:
        settings: time limit, memory limit, variant and chunk.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, folder: Path) -> str:
        """Run the trial of a version in a child process and wait for it.

        Args:
            folder: .../<name>/<version>.

        Returns:
            The sha256 of the model.json that was tried.

        Raises:
            SpecError: model.json or a hash is wrong.
            ModelRefused: the check that failed; "trial" if the child crashed or exceeded a limit.
        """
        settings = self._settings
        output, errors, status = self._run(
            [
                str(folder.absolute()),
                settings.variant,
                str(settings.chunk or GOLDEN_CHUNK),
                str(settings.admission_bytes),
            ]
        )
        lines = output.splitlines()
        if status != 0 or not lines:
            raise self._refusal(_ending(status, errors))
        found: dict[str, str] = json.loads(lines[-1])
        if "sha256" in found:
            return found["sha256"]
        if found["check"] == "spec":
            raise spec.SpecError(found["found"])
        if found["check"] == "trial":
            raise self._refusal(found["found"])
        raise ModelRefused(found["check"], found["expected"], found["found"])

    def stop(self) -> None:
        """Kill the running trial, if any, and refuse further ones."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None:
                self._child.kill()

    def _run(self, arguments: list[str]) -> tuple[str, str, int]:
        command = [sys.executable, "-m", "service.models.trial", *arguments]
        with self._lock:
            if self._is_stopped:
                raise self._refusal("a server that is being stopped")
            self._child = child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=Path(spec.__file__).parents[2],
                env=os.environ | _ONE_THREAD,
            )
        try:
            output, errors = child.communicate(timeout=self._settings.admission_seconds)
        except subprocess.TimeoutExpired as error:
            raise self._refusal("no end within that time") from error
        finally:
            with self._lock:
                self._child = None
                if child.returncode is None:
                    child.kill()
            with child:  # closes its pipes and reaps it
                pass
        return output.decode(errors="replace"), errors.decode(errors="replace"), child.returncode

    def _refusal(self, found: str) -> ModelRefused:
        settings = self._settings
        bounds = f"within {settings.admission_seconds:g} s and {settings.admission_bytes} bytes"
        return ModelRefused("trial", f"a version that loads and answers its golden examples {bounds}", found)


def _ending(status: int, errors: str) -> str:
    """Describe how a child ended that printed no result."""
    if status < 0:
        return f"its process ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}: {errors.strip()[-_MAX_SHOWN:] or 'without a word'}"


def check(folder: Path, variant: str, chunk: int) -> str:
    """Run all checks of a trial in this process.

    Args:
        folder: .../<name>/<version>.
        variant: fp32 or int8; fp32 is used if the version lacks int8.
        chunk: chunk length of the golden check, in time steps.

    Returns:
        The sha256 of model.json.

    Raises:
        SpecError: model.json or a hash is wrong.
        ModelRefused: the first check that failed.
    """
    model, text, files = spec.read_version(folder)
    chosen = next((one for name, one in model.variants.items() if name == variant), model.variants["fp32"])
    if model.classification is not None:
        name = model.classification.text.file
        read_tokenizer(name, files[name], model.input.size)
    runtime = Runtime(files[chosen.file], [(pair.input, pair.output) for pair in model.state], "cpu", 1)
    check_signature(model, runtime)
    check_golden(model, runtime, chosen.tolerance, chunk)
    return hashlib.sha256(text.encode()).hexdigest()


def main(arguments: list[str]) -> None:
    """Try one version and print the result as a line of JSON."""
    folder, variant, chunk, max_bytes = arguments
    resource.setrlimit(resource.RLIMIT_AS, (int(max_bytes), int(max_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(_outcome(Path(folder), variant, int(chunk))))


def _outcome(folder: Path, variant: str, chunk: int) -> dict[str, Any]:
    try:
        return {"sha256": check(folder, variant, chunk)}
    except spec.SpecError as error:
        return {"check": "spec", "found": str(error)}
    except ModelRefused as error:
        # onnxruntime reports a lack of memory in its message only.
        lacks_memory = "bad_alloc" in error.found or "allocate memory" in error.found
        return {
            "check": "trial" if lacks_memory else error.check,
            "expected": error.expected,
            "found": error.found,
        }
    except MemoryError:
        return {"check": "trial", "found": "more memory"}


if __name__ == "__main__":
    main(sys.argv[1:])
