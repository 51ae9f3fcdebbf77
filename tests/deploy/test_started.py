"""The real server, started with the environment that a rendered Deployment gives it and asked what the
kubelet would ask.
"""

import asyncio
import base64
from http.client import HTTPConnection
from pathlib import Path

import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.settings import PREFIX
from tests.deploy.render import (
    KUBERNETES,
    Manifest,
    container_of,
    environment,
    kustomize,
    of_kind,
    secret_mounts,
)
from tests.deploy.test_manifests import KEY, write_own
from tests.integration.process import SERVING, START_LIMIT_S, ServerProcess
from tests.tiny import export_all


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """letters, moods and prices."""
    repository = tmp_path_factory.mktemp("models")
    export_all(repository)
    return repository


def settings_of(variables: dict[str, str], mounted: dict[str, Path]) -> dict[str, str]:
    """An environment without its prefix: ports any free ones, and folders that are mounted in the pod where
    they are here.
    """
    found = {name.removeprefix(PREFIX): value for name, value in variables.items()}
    for name, value in found.items():
        if name.endswith("_ADDRESS"):
            found[name] = value.rpartition(":")[0] + ":0"
        for place, folder in mounted.items():
            found[name] = found[name].replace(place, str(folder))
    return found


async def passes(probe: Manifest, server: ServerProcess) -> bool:
    """What the kubelet makes of a probe: gRPC health in the clear, or an HTTP status from 200 to 399."""
    if "grpc" in probe:
        async with server.channel() as channel:
            request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=30)
            return bool(answer.status == SERVING)
    return await asyncio.to_thread(_is_found, server.http_port, probe["httpGet"]["path"])


def _is_found(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return 200 <= status < 400


async def live_through(container: Manifest, server: ServerProcess) -> None:
    """Start the server, ask it what a container's probes ask, tell it to end, and ask again during the
    grace.
    """
    probes = {name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    await server.start()
    try:
        await server.wait_for_event("serving")
        assert {name: await passes(probe, server) for name, probe in probes.items()} == dict.fromkeys(
            probes, True
        )
        server.terminate()
        async with asyncio.timeout(START_LIMIT_S):
            while await passes(probes["readinessProbe"], server):
                pass
        assert await passes(probes["livenessProbe"], server)
    finally:
        # Told a second time, it does without the rest of the grace.
        assert await server.stop() == 0


async def test_probes_pass_from_the_start_until_the_end(models: Path) -> None:
    manifests = kustomize(KUBERNETES / "overlays" / "cpu")
    await live_through(
        container_of(manifests), ServerProcess(models, settings_of(environment(manifests), {}))
    )


async def test_probes_pass_with_tls_tokens_and_keys(models: Path, tmp_path: Path) -> None:
    manifests = kustomize(write_own(tmp_path, KEY))
    issued = trustme.CA().issue_cert("localhost")
    contents = {
        "seqserve-tls": {
            "tls.crt": b"".join(blob.bytes() for blob in issued.cert_chain_pems),
            "tls.key": issued.private_key_pem.bytes(),
        },
        "seqserve-tokens": {"tokens": f"predict shop {'3f' * 32}\n".encode()},
    }
    for one in of_kind(manifests, "Secret"):
        contents[one["metadata"]["name"]] = {
            file: base64.b64decode(content) for file, content in one["data"].items()
        }
    mounted = {place: tmp_path / name for place, name in secret_mounts(manifests).items()}
    for folder in mounted.values():
        folder.mkdir()
        for file, content in contents[folder.name].items():
            (folder / file).write_bytes(content)
    server = ServerProcess(models, settings_of(environment(manifests), mounted))
    await live_through(container_of(manifests), server)
    assert not any("state tokens will not survive" in event["event"] for event in server.events)
