"""Starts tritonserver as a process on one core and ends it; measures its CPU time with that of its models."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from benchmarks.machine import pinned
from benchmarks.peers.environment import STUB, Environment
from benchmarks.peers.repository import TritonModel, write_repository
from benchmarks.servers import ServerEnded, cpu_seconds_of
from seqserve.inference import grpc_service_pb2 as oip

_READY = "/inference.GRPCInferenceService/ServerReady"
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 15.0
_CALL_LIMIT_S = 1.0
_POLL_S = 0.1
_LOG_TAIL = 4000
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel keeps it


class Triton:
    """A running tritonserver.

    Attributes:
        port: where gRPC listens.
        shared: prefix of the names of its shared memory.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path, shared: str) -> None:
        self._process = process
        self._log = log
        self.port = port
        self.shared = shared
        self._stubs: tuple[int, ...] = ()

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._process.pid

    @property
    def address(self) -> str:
        """The address as channels take it."""
        return f"127.0.0.1:{self.port}"

    def wait_until_ready(self) -> None:
        """Ask until the server and its models are ready.

        Raises:
            ServerEnded: the server ended, or is not ready after a minute; the text is the end of its log.
        """
        deadline = time.perf_counter() + _START_LIMIT_S
        with grpc.insecure_channel(self.address) as channel:
            ready: Any = channel.unary_unary(
                _READY,
                request_serializer=oip.ServerReadyRequest.SerializeToString,
                response_deserializer=oip.ServerReadyResponse.FromString,
            )
            while self._process.poll() is None and time.perf_counter() < deadline:
                try:
                    if ready(oip.ServerReadyRequest(), timeout=_CALL_LIMIT_S, wait_for_ready=True).ready:
                        self._stubs = children_of(self.pid)
                        return
                except grpc.RpcError as error:
                    if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                        raise
                time.sleep(_POLL_S)
        raise ServerEnded(self.log_tail())

    def log_tail(self) -> str:
        """Return the end of what the server and its models wrote."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    def cpu_seconds(self) -> float:
        """Return the CPU time of the server and of the processes of its models."""
        return sum(map(cpu_seconds_of, (self.pid, *self._stubs)))

    def stop(self) -> None:
        """End the server and its models, by force if need be, and remove their shared memory."""
        stubs = self._stubs or children_of(self.pid)
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid in stubs:
            _kill_stub(pid)
        for left in SHARED_MEMORY.glob(f"{self.shared}*"):
            left.unlink()


def children_of(pid: int) -> tuple[int, ...]:
    """Return the ids of the processes whose parent is a process."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; the parent is the second field after it.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended meanwhile
        if parent == pid:
            found.append(int(path.parent.name))
    return tuple(found)


def _kill_stub(pid: int) -> None:
    """Kill what is left of a model's process, unless its id is another process' by now."""
    try:
        if STUB in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, 9)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended by itself


def free_port() -> int:
    """Return a port of the loopback interface that was free just now: tritonserver takes no port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment_of(environment: Environment) -> dict[str, str]:
    """Return the variables of tritonserver, whose models find their packages by the python on the PATH."""
    return {
        "PATH": f"{environment.folder / 'bin'}:{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": f"{environment.libraries}:{environment.python_libraries}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }


def command_of(environment: Environment, folder: Path, port: int, shared: str) -> list[str]:
    """Return the command line: gRPC alone, on the loopback interface.

    Args:
        environment: with Triton.
        folder: has the folders `models` and `backends`.
        port: for gRPC.
        shared: prefix of the names of its shared memory.
    """
    return [
        str(environment.program),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        f"--backend-config=python,shm-region-prefix-name={shared}",
        "--disable-auto-complete-config",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
        # Kept messages: as many as requests are ever in flight here.
        "--grpc-infer-allocation-pool-size=64",
        "--allow-http=false",
        "--allow-metrics=false",
        "--log-info=false",
        f"--exit-timeout-secs={_STOP_LIMIT_S / 3:.0f}",
    ]


@contextmanager
def serve_triton(environment: Environment, models: Sequence[TritonModel], core: int) -> Iterator[Triton]:
    """Run tritonserver with these models on a core.

    Raises:
        ServerEnded: it did not become ready; the text is the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="seqserve-triton-") as name:
        folder = Path(name)
        (folder / "models").mkdir()
        write_repository(folder / "models", models)
        backend = shutil.copytree(environment.backend, folder / "backends" / "python")
        shutil.copy(environment.stub, backend / STUB)
        shared, port = folder.name, free_port()
        command = command_of(environment, folder, port, shared)
        with (folder / "log").open("wb") as sink, pinned({core}):
            process = subprocess.Popen(
                command, cwd=folder, env=environment_of(environment), stdout=sink, stderr=sink
            )
        triton = Triton(process, port, folder / "log", shared)
        try:
            triton.wait_until_ready()
            yield triton
        except Exception as error:
            error.add_note(f"tritonserver wrote: {triton.log_tail()}")
            raise
        finally:
            triton.stop()
