"""Runs an attack against a real server while newcomers call it and probes ask it."""

import asyncio
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.v1.text_classification_pb2 import ClassifyRequest
from seqserve.v1.text_classification_pb2_grpc import TextClassificationStub
from tests.chaos.outcome import Outcome
from tests.chaos.watching import resident_bytes
from tests.integration.process import ROOT, SERVING, ServerProcess

# A newcomer is answered, or refused with RESOURCE_EXHAUSTED, within this time.
NEWCOMER_S = 1.0
# From SIGTERM to the end, where nothing runs that is worth waiting for.
STOP_S = 5.0
_ALLOWED = (grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED)
_PAUSE_S = 0.05
_ATTACK_S = 120.0


@dataclass(slots=True)
class Watch:
    """The record of a siege: the time that an answer may take, what was wrong, and the longest waits."""

    limit_s: float
    lost: list[str] = field(default_factory=list)
    newcomers: int = 0
    refused: int = 0
    slowest_call_s: float = 0.0
    slowest_probe_s: float = 0.0
    peak_bytes: int = 0


async def besiege(
    name: str,
    repository: Path,
    model: str,
    settings: Mapping[str, str] | None = None,
    allowance_bytes: int = 0,
    limit_s: float = NEWCOMER_S,
) -> Outcome:
    """Attack a server; newcomers and probes must not notice, and it must stop in time afterwards.

    Args:
        name: of the attack, one of `attack.ATTACKS`.
        repository: folder of models.
        model: classifies the texts of the newcomers.
        settings: of the server.
        allowance_bytes: memory that the attack may cost; 0: it is reported only.
        limit_s: time in which newcomers and probes must be answered.
    """
    watch = Watch(limit_s)
    async with ServerProcess(repository, settings) as server:
        await _newcomer(server, model, watch)
        before = watch.peak_bytes = resident_bytes(server)
        attacking = asyncio.ensure_future(_attack(name, server))
        while not attacking.done():
            await asyncio.gather(_newcomer(server, model, watch), _probes(server, watch))
            watch.peak_bytes = max(watch.peak_bytes, resident_bytes(server))
            await asyncio.wait({attacking}, timeout=_PAUSE_S)
        attacking.result()
        await _newcomer(server, model, watch)
        await _probes(server, watch)
        started = time.monotonic()
        server.terminate()
        status = await server.ended()
        stop_s = time.monotonic() - started
    if status != 0 or stop_s > STOP_S:
        watch.lost.append(f"the stop took {stop_s:.1f} s, exit status {status}")
    grown = watch.peak_bytes - before
    if allowance_bytes and grown > allowance_bytes:
        watch.lost.append(f"memory grew by {grown >> 20} MiB, allowed are {allowance_bytes >> 20}")
    facts = {
        "refused for load": float(watch.refused),
        "slowest probe, s": watch.slowest_probe_s,
        "memory grown, MiB": grown / 2**20,
        "stop, s": stop_s,
    }
    return Outcome(
        name, watch.newcomers, "newcomers and probes", tuple(watch.lost), watch.slowest_call_s, facts
    )


async def _attack(name: str, server: ServerProcess) -> None:
    """Run an attack in a process of its own."""
    ports = str(server.grpc_port), str(server.http_port)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.hostile.attack", name, *ports, cwd=ROOT
    )
    try:
        async with asyncio.timeout(_ATTACK_S):
            assert await process.wait() == 0, f"the attack {name} has failed"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _newcomer(server: ServerProcess, model: str, watch: Watch) -> None:
    """Connect, classify one text and leave."""
    started = time.monotonic()
    async with server.channel(use_local_subchannel_pool=1) as channel:
        call = TextClassificationStub(channel).Classify(
            ClassifyRequest(model=model, texts=["good"]), timeout=10 * watch.limit_s, wait_for_ready=True
        )
        code = await call.code()
    seconds = time.monotonic() - started
    watch.newcomers += 1
    watch.refused += code is grpc.StatusCode.RESOURCE_EXHAUSTED
    watch.slowest_call_s = max(watch.slowest_call_s, seconds)
    if code not in _ALLOWED or seconds > watch.limit_s:
        watch.lost.append(f"a newcomer got {code.name} after {seconds:.2f} s")


async def _probes(server: ServerProcess, watch: Watch) -> None:
    """Ask for liveness, readiness and health, which all must be good, within the same time."""
    started = time.monotonic()
    found = await asyncio.gather(
        asyncio.to_thread(_status_of, f"{server.http}/livez"),
        asyncio.to_thread(_status_of, f"{server.http}/readyz"),
        _health_of(server),
    )
    seconds = time.monotonic() - started
    watch.slowest_probe_s = max(watch.slowest_probe_s, seconds)
    if list(found) != [200, 200, SERVING] or seconds > watch.limit_s:
        watch.lost.append(f"livez, readyz and health were {found} after {seconds:.2f} s")


def _status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10 * NEWCOMER_S) as response:  # noqa: S310 - loopback
            return int(response.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


async def _health_of(server: ServerProcess) -> int:
    async with server.channel(use_local_subchannel_pool=1) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=10 * NEWCOMER_S, wait_for_ready=True
            )
        except aio.AioRpcError:
            return 0
        return int(answer.status)
