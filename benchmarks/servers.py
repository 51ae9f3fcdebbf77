"""Servers as processes of their own, each on the server's core: ours, and those it is measured against.

All of them write JSON lines to standard error, among them the event "listening" with the port, as `python -m
service` does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.machine import pinned
from benchmarks.models import Model

ROOT = Path(__file__).parents[1]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0
_POLL_S = 0.005
_LOG_TAIL = 2000
_CPUCLOCK_SCHED = 2  # Linux: the scheduler's count of all threads, those that have ended included


def cpu_seconds_of(pid: int) -> float:
    """Return the CPU time that a process has used, in nanosecond steps."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


class ServerEnded(Exception):
    """A server ended before it served; the text is what it wrote."""


class Server:
    """A running server.

    Attributes:
        port: where gRPC listens.
        http_port: where metrics are, 0 for servers without.
        started_s: from its start as a process until it served.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, started_at: float) -> None:
        self._process = process
        self._log = log
        listening = self._wait_for("listening", started_at)
        self.port: int = listening["grpc_port"]
        self.http_port: int = listening.get("http_port", 0)
        self.started_s = 0.0

    @property
    def address(self) -> str:
        """As channels take it."""
        return f"127.0.0.1:{self.port}"

    def _wait_for(self, event: str, started_at: float) -> dict[str, Any]:
        """An event of its log. Read again and again: the log is short then, and polls are a few milliseconds
        apart.
        """
        while time.perf_counter() < started_at + _START_LIMIT_S:
            for line in self._log.read_text().splitlines():
                if f'"{event}"' in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            if self._process.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise ServerEnded(self._log.read_text())

    def wait_until_serving(self, started_at: float) -> None:
        """Watch its health until it serves."""
        with grpc.insecure_channel(self.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=_START_LIMIT_S
            )
            for response in watch:
                if response.status == _SERVING:
                    break
            self.started_s = time.perf_counter() - started_at
            watch.cancel()

    def cpu_seconds(self) -> float:
        """CPU time that it has used, in nanosecond steps: what clock_getcpuclockid(3) stands for."""
        return cpu_seconds_of(self._process.pid)

    def resident_mib(self) -> float:
        """Memory that it holds now."""
        return self._status_mib("VmRSS")

    def peak_resident_mib(self) -> float:
        """The most memory that it has held."""
        return self._status_mib("VmHWM")

    def _status_mib(self, field: str) -> float:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {field} in the process' status")

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        with urlopen(f"http://127.0.0.1:{self.http_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [
            line
            for line in lines
            if line.startswith((f"{name}{{", f"{name} ")) and all(one in line for one in wanted)
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def stop(self) -> None:
        """End it, by force if need be."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _start(
    module: str, arguments: list[str], settings: Mapping[str, str], cores: Set[int]
) -> Iterator[tuple[Server, float]]:
    with tempfile.TemporaryDirectory(prefix="seqserve-bench-log-") as folder:
        log = Path(folder) / "log"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SEQSERVE_")},
            **settings,
        }
        # Popen lets the child inherit the affinity, so that it never runs anywhere else and counts one core
        # as its own.
        with log.open("wb") as sink, pinned(cores):
            started_at = time.perf_counter()
            process = _popen([sys.executable, "-m", module, *arguments], environment, sink)
        try:
            server = Server(process, log, started_at)
            yield server, started_at
            server.stop()
        except ServerEnded:
            raise
        except Exception as error:
            error.add_note(f"{module} wrote: {log.read_text()[-_LOG_TAIL:]}")
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _popen(command: list[str], environment: Mapping[str, str], sink: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=sink)


@contextmanager
def serve(repository: Path, core: int | Set[int], without: str = "", **settings: str) -> Iterator[Server]:
    """Ours, as a user starts it: `python -m service`.

    Args:
        repository: folder of models.
        core: where it runs, or several cores.
        without: name of an optimisation in `benchmarks.without` that is taken out; empty: none.
        settings: further SEQSERVE_* variables, in lower case without the prefix.
    """
    variables = {
        "SEQSERVE_REPOSITORY": str(repository),
        "SEQSERVE_GRPC_ADDRESS": "127.0.0.1:0",
        "SEQSERVE_HTTP_ADDRESS": "127.0.0.1:0",
        "SEQSERVE_LOG_FORMAT": "json",
        **{f"SEQSERVE_{name.upper()}": value for name, value in settings.items()},
    }
    module, arguments = ("benchmarks.without", [without]) if without else ("service", [])
    cores = {core} if isinstance(core, int) else core
    with _start(module, arguments, variables, cores) as (server, started_at):
        server.wait_until_serving(started_at)
        yield server


@contextmanager
def serve_fifo(model: Model, core: int) -> Iterator[Server]:
    """A server of one classifier that pads batches of 32 in the order of arrival."""
    with _start("benchmarks.baselines.fifo_server", [str(model.folder)], {}, {core}) as (server, _):
        yield server


@contextmanager
def serve_echo(front: str, answer_bytes: int, core: int) -> Iterator[Server]:
    """A server that answers each message with so many bytes and does nothing else.

    Args:
        front: "asyncio", "threads-<number>", "forecast" or "infer".
        answer_bytes: of an answer.
        core: where it runs.
    """
    with _start("benchmarks.baselines.echo_server", [front, str(answer_bytes)], {}, {core}) as (server, _):
        yield server
