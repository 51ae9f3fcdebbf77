"""Trials of versions in a child process, so that a crash, a hang or excessive memory cannot harm the server.

The child (`service.models.trial_child`) prepares a version just as the server would, with limits of time and
memory. The server's always uses the CPU provider. One child tries any number of versions, so that a start
costs one child; it is ended after a refusal that may have left it damaged, and when there is nothing more to
try.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from service.contract import spec
from service.errors import ModelRefused
from service.models.checklist import Passed, Tell, tell_nobody
from service.models.choices import Choices
from service.models.tried import Tried
from service.settings import Settings
from service.signals import STOP_SIGNALS

_MAX_SHOWN = 300  # characters of the child's stderr in an error text
_MAX_ANSWER = 1 << 20
_REAP_S = 5.0  # from SIGKILL to the end; a process whose file system hangs takes longer
# The child's threads are those that the settings give to onnxruntime.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Trial:
    """Runs trials of versions, one at a time; `stop` may be called in any thread, the rest in one.

    Args:
        settings: time limit, memory limit, and what a preparation depends on.
        provider: the execution provider that the child uses.
    """

    def __init__(self, settings: Settings, provider: Literal["cpu", "cuda"] = "cpu") -> None:
        self._settings = settings
        self._provider = provider
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._is_stopped = False

    def begin(self) -> None:
        """Start the child, which imports what it needs meanwhile; where that fails, a trial tells why."""
        with suppress(ModelRefused):
            self._running_child()

    def run(self, folder: Path) -> Tried:
        """Run the trial of a version and wait for it.

        Args:
            folder: .../<name>/<version>.

        Returns:
            What was tried, and what was measured of it.

        Raises:
            SpecError: model.json or a hash is wrong.
            ModelRefused: the check that failed; "trial" if the child crashed or exceeded a limit.
        """
        return Tried(*self._answer("tried", folder))

    def examine(self, folder: Path, tell: Tell) -> Tried:
        """Run the trial of a version as `run` does, and tell each check that it passes and what it costs.

        Args:
            folder: .../<name>/<version>.
            tell: called for a check as soon as it is passed, and again where more was measured.
        """
        question = json.dumps({"examined": str(folder.absolute())})
        return Tried(*self._value("tried", self._asked(question, tell)))

    def difference(self, newer: Path, older: Path) -> str:
        """Compare the interfaces of two versions by their model.json, which the child alone reads.

        Args:
            newer: .../<name>/<version>.
            older: folder of another version.

        Returns:
            A sentence on what differs, empty where nothing does.

        Raises:
            SpecError, ModelRefused: one of them cannot be read.
        """
        difference: str = self._answer("difference", newer, older)
        return difference

    def _answer(self, key: str, *folders: Path) -> Any:
        """Return a value of the child's answer; raise what its answer refuses."""
        return self._value(key, self._ask(*folders))

    def _value(self, key: str, found: Mapping[str, Any]) -> Any:
        if key in found:
            return found[key]
        if found["check"] == "trial":
            self.close()
            raise self._refusal(found["found"])
        if found["check"] == "spec":
            raise spec.SpecError(found["found"])
        raise ModelRefused(found["check"], found["expected"], found["found"])

    def close(self) -> None:
        """End the child, if any; the next trial starts another one."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def stop(self) -> None:
        """Kill the child, which ends a trial that is under way, and refuse further ones."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None:
                self._child.kill()

    def _ask(self, *folders: Path) -> dict[str, Any]:
        return self._asked(json.dumps([str(folder.absolute()) for folder in folders]), tell_nobody)

    def _asked(self, question: str, tell: Tell) -> dict[str, Any]:
        """Return the child's answer; what it tells before that is told."""
        child = self._running_child()
        try:
            until = time.monotonic() + self._settings.admission_seconds
            child.send(question)
            found: dict[str, Any] = json.loads(child.line(until))
            while "passed" in found:
                tell(Passed(*found["passed"]))
                found = json.loads(child.line(until))
            child.expect_nothing()
        except TimeoutError as error:
            self.close()
            raise self._refusal("no end within that time") from error
        except (OSError, ValueError) as error:
            self.close()
            raise self._refusal(child.ending) from error
        return found

    def _running_child(self) -> "_Child":
        settings = self._settings
        with self._lock:
            if self._is_stopped:
                raise self._refusal("a server that is being stopped")
            if self._child is not None and self._child.has_ended:
                # Something killed it while it was idle, which is no fault of the next version.
                self._child.end()
                self._child = None
            if self._child is None:
                choices = replace(Choices.of(settings), provider=self._provider)
                try:
                    self._child = _Child(choices, settings.admission_bytes, settings.admission_seconds)
                except OSError as error:
                    raise self._refusal(f"no process to be had: {error}") from error
            return self._child

    def _refusal(self, found: str) -> ModelRefused:
        settings = self._settings
        bounds = f"within {settings.admission_seconds:g} s and {settings.admission_bytes} bytes"
        return ModelRefused("trial", f"a version that loads and answers its golden examples {bounds}", found)


class _Child:
    """A child process, which answers one line of text with another.

    Args:
        choices: its first line.
        max_bytes: memory limit.
        seconds: time limit of each trial.

    Attributes:
        ending: how it ended, after `end`.

    Raises:
        OSError: there are too many processes, files, or too little memory.
    """

    def __init__(self, choices: Choices, max_bytes: int, seconds: float) -> None:
        self.ending = ""
        program = [sys.executable, "-P", "-m", "service.models.trial_child"]
        # A file, since a pipe that nobody reads would stop the child.
        self._errors = os.memfd_create("trial")
        try:
            # Without close_fds, cwd or a session of its own, Popen uses posix_spawn. It takes no time that
            # grows with this process, and runs no handlers of fork: gRPC's start threads, and abort if there
            # are none to be had. Descriptors of this process close at exec (PEP 446, and gRPC's flags).
            with _stop_signals_blocked():
                self._process = subprocess.Popen(
                    [*program, str(os.getpid()), str(max_bytes), str(seconds)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    close_fds=False,
                    bufsize=0,
                    env=os.environ | _ENVIRONMENT | {"PYTHONPATH": _python_path()},
                )
        except BaseException:
            os.close(self._errors)
            raise
        self._lines = [json.dumps(asdict(choices))]
        self._read = b""  # of its output, what is not yet a line

    def send(self, line: str) -> None:
        """Send a line.

        Raises:
            OSError: the child has ended.
        """
        assert self._process.stdin is not None, "it is a pipe"
        self._lines.append(line)
        self._process.stdin.write("".join(f"{one}\n" for one in self._lines).encode())
        self._lines = []

    def line(self, until: float) -> bytes:
        """Return the next line that the child writes.

        Args:
            until: time of `time.monotonic` to wait for it.

        Raises:
            TimeoutError: there was none in time.
            OSError: the child has ended.
            ValueError: what it writes is no line of bounded length.
        """
        assert self._process.stdout is not None, "it is a pipe"
        descriptor = self._process.stdout.fileno()
        readable = select.poll()
        readable.register(descriptor, select.POLLIN)
        while b"\n" not in self._read:
            if not readable.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            self._read += piece
            if not piece or len(self._read) > _MAX_ANSWER:
                raise ValueError("no line")
        line, _, self._read = self._read.partition(b"\n")
        return line

    def expect_nothing(self) -> None:
        """Raise ValueError where the child has written more than was read as lines."""
        if self._read:
            raise ValueError("more than an answer")

    @property
    def has_ended(self) -> bool:
        """True once its process has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill it, in any thread."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, reap it, and note how it ended; a child that had ended by itself keeps its status.

        One that does not end within `_REAP_S` is left behind.
        """
        try:
            # It has closed its output, so that it ends by itself, or is to be killed.
            self._process.wait(0.0 if self._is_open() else 1.0)
        except subprocess.TimeoutExpired:
            self.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_REAP_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "it is a pipe"
            pipe.close()
        size = os.fstat(self._errors).st_size
        errors = os.pread(self._errors, 4 * _MAX_SHOWN, max(0, size - 4 * _MAX_SHOWN))
        os.close(self._errors)
        self.ending = _ending(self._process.returncode, errors.decode(errors="replace"))

    def _is_open(self) -> bool:
        """Return whether the child still holds its output open."""
        assert self._process.stdout is not None, "it is a pipe"
        poll = select.poll()
        poll.register(self._process.stdout, 0)
        return not any(event & select.POLLHUP for _, event in poll.poll(0))


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Have a child begin with the signals to stop blocked.

    Those of a terminal and of process managers come to the whole group. The server ends its child itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _python_path() -> str:
    """Return a search path on which the child finds this package, whatever the working folder."""
    root = str(Path(spec.__file__).parents[2])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def _ending(status: int | None, errors: str) -> str:
    """Describe how a child ended that printed no result; None: it has not ended."""
    if status is None:
        return "its process does not end"
    if status < 0:
        return f"its process ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}: {errors.strip()[-_MAX_SHOWN:] or 'nothing on stderr'}"
